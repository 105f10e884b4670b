//! Folders: published file by file with a manifest that names them, downloaded object by object and then laid out.

mod download;
mod publish;

#[cfg(test)]
mod tests;

pub use download::FolderDownload;
pub use publish::{PublishedFolder, Skipped, publish_folder};
