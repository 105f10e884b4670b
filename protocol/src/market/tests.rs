//! The market as its peers meet it: random schedules against a plain reference, the chain, and those who cheat.

mod advances;
mod audit;
mod backup;
mod bills;
mod blocks;
mod chain;
mod folders;
mod hostile;
mod trade;
mod world;
