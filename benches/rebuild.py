#!/usr/bin/env python3
"""Measures how fast a node that was away is filled, idle and beside a guest's load, and what that load notices of it.

Two daemons with a disk file each and two copies, as in `cluster.py`. One is killed with -9, the whole volume is written at the other, and the first comes back: all
of it is filled. The speed is that of what its disk was filled with (`sarsen_disk_filled_bytes_total`), from the first byte until the pool is whole. Beside load,
`sarsen bench` does random 4 KiB reads and writes at depth 4 all the time; its p99 is held against the same without a rebuild.

    benches/rebuild.py [--rounds 2] [--size 1G] [--security plain-loopback|mutual-tls]

Needs: a release build (cargo build --release) and fio. It also says what one disk and loopback TCP do in 64 KiB in the same run: a rebuild cannot be faster than the
least of these.
"""

import os, signal, socket, statistics, threading, time
from cluster import bench, fio, options, site, until, whole, written

CHUNK = 64 << 10
LOADS = {"reads": ("randread", "4k", 4), "writes": ("randwrite", "4k", 4)}


def filled(node):
    """Bytes that its disks were filled with since it started; 0 while it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(node.api)
            stream.sendall(b"GET /metrics HTTP/1.0\r\nHost: sarsen\r\n\r\n")
            text = b"".join(iter(lambda: stream.recv(1 << 16), b"")).decode()
    except OSError:
        return 0
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("sarsen_disk_filled_bytes_total"))


def loopback():
    """MB/s of 64 KiB messages from one process to another."""
    listener, messages = socket.create_server(("127.0.0.1", 0)), 20_000
    if os.fork() == 0:
        peer, _ = listener.accept()
        space = bytearray(CHUNK)
        while peer.recv_into(space, CHUNK, socket.MSG_WAITALL):
            pass
        os._exit(0)
    own, payload = socket.create_connection(listener.getsockname()), bytes(CHUNK)
    begun = time.perf_counter()
    for _ in range(messages):
        own.sendall(payload)
    own.close()
    os.wait()
    return messages * CHUNK / (time.perf_counter() - begun) / 1e6


def rebuild(nodes, size, amid=None):
    """Has the second node miss all that is written; MB/s of its filling, and seconds. `amid` runs meanwhile."""
    a, b = nodes
    b.process.send_signal(signal.SIGKILL)
    b.process.wait()
    written(a, size)
    b.start()
    until(lambda: filled(b) > 0, "nothing is filled")
    begun, done = time.perf_counter(), threading.Event()
    load = threading.Thread(target=lambda: amid(done)) if amid else None
    if load:
        load.start()
    whole(a, 600)
    took = time.perf_counter() - begun
    done.set()
    if load:
        load.join()
    return filled(b) / took / 1e6, took


def main():
    args = options().parse_args()
    with site(args) as (nodes, file, size):
        target = ["--ioengine=io_uring", "--direct=1", f"--filename={file}"]
        floors, idle, beside = {"64 KiB reads": [], "64 KiB writes": [], "loopback TCP": []}, [], {name: [] for name in LOADS}
        for _ in range(args.rounds):
            floors["64 KiB reads"].append(fio(target, "randread", "64k", 8, 2, size, False)["iops"] * CHUNK / 1e6)
            floors["64 KiB writes"].append(fio(target, "randwrite", "64k", 8, 2, size, True)["iops"] * CHUNK / 1e6)
            floors["loopback TCP"].append(loopback())
            idle.append(rebuild(nodes, size)[0])
            for name, (rw, bs, depth) in LOADS.items():
                alone = bench(nodes[0], rw, bs, depth, args.seconds)
                seen = []

                def amid(done):
                    while not done.is_set():
                        seen.append(bench(nodes[0], rw, bs, depth, 1))

                speed, _ = rebuild(nodes, size, amid)
                p99 = statistics.median(run["p99_us"] for run in seen)
                beside[name].append((speed, alone["p99_us"], p99, alone["iops"], statistics.median(run["iops"] for run in seen)))
        least = min(statistics.median(of) for of in floors.values())
        print(f"{size >> 20} MiB, {args.security}, medians of {args.rounds} rounds, MB/s")
        for name, of in floors.items():
            print(f"{name:16} {statistics.median(of):7.0f}")
        speed = statistics.median(idle)
        print(f"{'rebuild, idle':16} {speed:7.0f}  x{speed / least:.2f} of the least")
        for name, of in beside.items():
            speed, before, p99, iops, left = (statistics.median(column) for column in zip(*of))
            print(f"{'beside ' + name:16} {speed:7.0f}  their p99 {p99:.0f} us, x{p99 / before:.2f} of {before:.0f} alone; {left:.0f} of {iops:.0f} IOPS")


if __name__ == "__main__":
    main()
