#!/usr/bin/env python3
"""Measures NBD servers against each other with fio's nbd engine: Sarsen, qemu-nbd, qemu-storage-daemon.

All serve a file of the same kind and size, prefilled, in one run, alternating, so that what the machine does
meanwhile hits all alike: ratios hold, absolute figures do not. Writes are compared at the same promise
(acknowledged = durable): qemu-nbd with cache=directsync, qemu-storage-daemon with cache.direct and an export that is
writethrough.

Client and server have a core each, so that the scheduler does not decide the result: left alone, and where cores share no
cache, it puts whoever is woken by a socket on its waker's core. --anywhere leaves it to the scheduler.

    benches/nbd.py [--anywhere] [--pairs 5] [--seconds 4] [--size 2G] [--only randread-1,randwrite-32] [--json FILE]

Needs: a release build (cargo build --release), fio, qemu-utils, qemu-storage-daemon.
"""

import argparse, json, os, shutil, signal, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
CASES = {
    "randread-1": ("randread", "4k", 1),
    "randread-32": ("randread", "4k", 32),
    "randwrite-1": ("randwrite", "4k", 1),
    "randwrite-32": ("randwrite", "4k", 32),
    "read-1m": ("read", "1m", 4),
    "write-1m": ("write", "1m", 4),
}


def size_bytes(text):
    return int(text[:-1]) << {"M": 20, "G": 30}[text[-1].upper()]


PINNED = True


def on_core(core, argv):
    return ["taskset", "-c", str(core), *argv] if PINNED else argv


class Server:
    """A server process, its NBD address, and the processor time that it used."""

    def __init__(self, name, argv, uri):
        self.name, self.uri = name, uri
        self.process = subprocess.Popen(on_core(0, argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait_for(self, path):
        for _ in range(200):
            if os.path.exists(path):
                return
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended: {self.process.stderr.read().decode()}")
            time.sleep(0.05)
        sys.exit(f"{self.name} does not listen on {path}")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def start_all(directory, size, sarsen):
    servers = []
    data = os.path.join(directory, "sarsen")
    server = Server("sarsen", [sarsen, "dev", "--data", data, "--size", "8G"],
                    f"nbd+unix:///bench?socket={data}/nbd.sock")
    server.wait_for(f"{data}/nbd.sock")
    subprocess.run([sarsen, "--api", f"{data}/api.sock", "volume", "create", "bench", "--size",
                    f"{size >> 20}M"], check=True, stdout=subprocess.DEVNULL)
    servers.append(server)

    def raw(name):
        path = os.path.join(directory, name)
        with open(path, "wb") as out:
            out.truncate(size)
        return path

    file, sock = raw("qemu-nbd.raw"), os.path.join(directory, "qemu-nbd.sock")
    server = Server("qemu-nbd", ["qemu-nbd", "--cache=directsync", "--aio=io_uring", "-f", "raw", "-t",
                                 "-e", "8", "-k", sock, file], f"nbd+unix:///?socket={sock}")
    server.wait_for(sock)
    servers.append(server)
    file, sock = raw("qsd.raw"), os.path.join(directory, "qsd.sock")
    server = Server("qsd", ["qemu-storage-daemon", "--blockdev",
                            f"driver=file,node-name=f,filename={file},cache.direct=on,aio=io_uring",
                            "--nbd-server", f"addr.type=unix,addr.path={sock}", "--export",
                            "type=nbd,id=e,node-name=f,name=bench,writable=on,writethrough=on"],
                    f"nbd+unix:///bench?socket={sock}")
    server.wait_for(sock)
    servers.append(server)
    return servers


def fio(server, rw, bs, depth, size, seconds=None):
    argv = ["fio", "--name=b", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}", f"--bs={bs}",
            f"--iodepth={depth}", f"--size={size}", "--output-format=json", "--randrepeat=0",
            "--refill_buffers=0"]
    if seconds:
        argv += ["--time_based", f"--runtime={seconds}", "--ramp_time=1"]
    before, start = server.cpu_seconds(), time.monotonic()
    done = subprocess.run(on_core(1, argv), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"fio against {server.name}: {done.stderr}{done.stdout[-2000:]}")
    cpu, took = server.cpu_seconds() - before, time.monotonic() - start
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["read" if rw.endswith("read") else "write"]
    # The ramp is served too, so processor time is divided by what was served in all of the time.
    served = side["iops"] * took
    return {"iops": side["iops"], "mb_s": side["bw_bytes"] / 1e6, "mean_us": side["lat_ns"]["mean"] / 1e3,
            "p99_us": side["clat_ns"]["percentile"]["99.000000"] / 1e3, "cpu_us": cpu / served * 1e6}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--size", default="2G")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--sarsen", default=f"{ROOT}/target/release/sarsen")
    parser.add_argument("--dir", default=None, help="where the files lie (the disk that is measured)")
    parser.add_argument("--json")
    parser.add_argument("--anywhere", action="store_true")
    args = parser.parse_args()
    global PINNED
    PINNED = not args.anywhere
    size = size_bytes(args.size)
    directory = tempfile.mkdtemp(prefix="nbd-bench-", dir=args.dir or ROOT + "/target")
    servers = []
    try:
        servers = start_all(directory, size, args.sarsen)
        for server in servers:
            fio(server, "write", "1m", 8, size)
        results = {}
        print(f"{'case':13} {'server':9} {'IOPS':>9} {'MB/s':>7} {'mean us':>8} {'p99 us':>8} {'CPU us':>7}"
              f" {'IOPS of sarsen / it':>22} {'CPU of sarsen / it':>19}")
        for case in args.only.split(","):
            rw, bs, depth = CASES[case]
            runs = {server.name: [] for server in servers}
            for _ in range(args.pairs):
                for server in servers:
                    runs[server.name].append(fio(server, rw, bs, depth, size, args.seconds))
            results[case] = runs
            for server in servers:
                mine, its = runs["sarsen"], runs[server.name]
                median = {key: statistics.median(run[key] for run in its) for key in its[0]}
                ratio = [m["iops"] / i["iops"] for m, i in zip(mine, its)]
                cpu = [m["cpu_us"] / i["cpu_us"] for m, i in zip(mine, its)]
                print(f"{case:13} {server.name:9} {median['iops']:9.0f} {median['mb_s']:7.0f}"
                      f" {median['mean_us']:8.1f} {median['p99_us']:8.1f} {median['cpu_us']:7.2f}"
                      f" {statistics.median(ratio):10.2f} ({min(ratio):.2f}-{max(ratio):.2f})"
                      f" {statistics.median(cpu):12.2f}", flush=True)
        if args.json:
            with open(args.json, "w") as out:
                json.dump(results, out, indent=1)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
