"""One side of a libtorrent transfer over TCP on loopback: the peer that our speed is held against.

torrent.py seed FILE TORRENT            hashes FILE, writes TORRENT, prints its port, seeds until it is killed
torrent.py leech TORRENT FOLDER PORT    downloads from that port; prints seconds and its CPU seconds"""
import resource
import sys
import time

import libtorrent as lt


def session():
    """No rate limit, no discovery, no uTP: two peers that know each other and use TCP as fast as it goes."""
    return lt.session({
        "listen_interfaces": "127.0.0.1:0",
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "download_rate_limit": 0,
        "upload_rate_limit": 0,
        "allow_multiple_connections_per_ip": True,
        "max_out_request_queue": 1500,
        "max_allowed_in_request_queue": 4000,
    })


def seed(file, torrent):
    storage = lt.file_storage()
    lt.add_files(storage, file)
    made = lt.create_torrent(storage)
    folder = file.rsplit("/", 1)[0]
    lt.set_piece_hashes(made, folder)
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))
    ours = session()
    handle = ours.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder,
                               "flags": lt.torrent_flags.seed_mode})
    handle.unset_flags(lt.torrent_flags.auto_managed)
    handle.resume()
    while not ours.listen_port():
        time.sleep(0.01)
    print(ours.listen_port(), flush=True)
    while True:
        time.sleep(3600)


def leech(torrent, folder, port):
    ours = session()
    begun = time.monotonic()
    handle = ours.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder})
    handle.unset_flags(lt.torrent_flags.auto_managed)
    handle.resume()
    handle.connect_peer(("127.0.0.1", int(port)))
    while not handle.status().is_seeding:
        time.sleep(0.005)
    took = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(took, used.ru_utime + used.ru_stime, flush=True)


if __name__ == "__main__":
    {"seed": seed, "leech": leech}[sys.argv[1]](*sys.argv[2:])
