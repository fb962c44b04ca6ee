#!/usr/bin/env python3
"""Measures `sarsen bench` (a volume without a front end) against fio on a bare file of the same disk.

In one run, alternating, both prefilled, O_DIRECT: ratios hold, absolute figures do not. Each case says which fio job it
is held against, and what the project aims at.

    benches/bare.py [--pairs 5] [--seconds 3] [--size 2G] [--only d1,burst,...] [--json FILE]

Needs: a release build (cargo build --release) and fio.
"""

import argparse, json, os, shutil, signal, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Name: sarsen's load, fio's load, what is compared, seconds, pairs (None: as asked), the aim.
CASES = {
    "d1": (("randwrite", "4k", 1), ("write", "8k", 1, True), "mean_us", None, None, "at most 1.25"),
    "d1-burst": (("randwrite", "4k", 1), ("write", "8k", 1, True), "mean_us", 0.25, None, "at most 1.25"),
    "burst-32": (("randwrite", "4k", 32), ("randwrite", "4k", 32, True), "iops", 0.05, None, "at least 2"),
    "steady-32": (("randwrite", "4k", 32), ("randwrite", "4k", 32, False), "iops", 60, 1, "at least 0.75"),
    "randread-1": (("randread", "4k", 1), ("randread", "4k", 1, False), "mean_us", None, None, "(not set)"),
    "randread-32": (("randread", "4k", 32), ("randread", "4k", 32, False), "iops", None, None, "(not set)"),
    "read-1m": (("read", "1m", 4), ("read", "1m", 4, False), "bytes_per_second", None, None, "at least 0.85"),
    "write-1m": (("write", "1m", 4), ("write", "1m", 4, True), "bytes_per_second", None, None, "at least 0.85"),
}


class Daemon:
    """`sarsen daemon` with one disk and a prefilled volume."""

    def __init__(self, sarsen, directory, size, memory):
        self.api = os.path.join(directory, "api.sock")
        config = os.path.join(directory, "sarsen.toml")
        with open(config, "w") as out:
            out.write(f'data_dir = "{directory}/data"\nmemory = "{memory}"\n'
                      f'[api]\nsocket = "{self.api}"\n[nbd]\nsocket = "{directory}/nbd.sock"\n'
                      f'[[disk]]\npath = "{directory}/disk0"\nsize = "{(4 * size) >> 20}M"\n')
        self.sarsen = sarsen
        self.process = subprocess.Popen([sarsen, "daemon", "--config", config],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not os.path.exists(self.api):
            if self.process.poll() is not None:
                sys.exit(f"sarsen ended: {self.process.stderr.read().decode()}")
            time.sleep(0.05)
        self.run("volume", "create", "bench", "--size", f"{size >> 20}M")
        # By count of bytes, not by time: sequential until all is written.
        rate = self.bench("write", "1m", 4, 1)["bytes_per_second"]
        self.bench("write", "1m", 4, 2 + 2 * size / rate)

    def run(self, *args):
        argv = [self.sarsen, "--api", self.api, *args]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(argv)}: {done.stderr}")
        return done.stdout

    def bench(self, rw, bs, depth, seconds):
        return json.loads(self.run("bench", "bench", "--rw", rw, "--bs", bs, "--depth", str(depth),
                                   "--seconds", f"{seconds:.3f}", "--overwrite", "--json"))

    def wraps(self):
        # How often the journal came round, from the metrics.
        argv = ["curl", "-s", "--unix-socket", self.api, "http://localhost/metrics"]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        return sum(float(line.split()[-1]) for line in text.splitlines()
                   if line.startswith("sarsen_disk_journal_wraps_total"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def fio(file, size, rw, bs, depth, durable, seconds=None):
    argv = ["fio", "--name=b", "--ioengine=io_uring", "--direct=1", f"--filename={file}", f"--size={size}",
            f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}", "--output-format=json", "--randrepeat=0"]
    argv += ["--sync=dsync"] * durable
    argv += ["--time_based", f"--runtime={max(1, round(seconds))}"] if seconds else []
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"fio: {done.stderr}{done.stdout[-2000:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["read" if rw.endswith("read") else "write"]
    cpu_us = (job["usr_cpu"] + job["sys_cpu"]) / 100 * side["runtime"] * 1e3 / max(1, side["total_ios"])
    return {"iops": side["iops"], "bytes_per_second": side["bw_bytes"], "mean_us": side["lat_ns"]["mean"] / 1e3,
            "p99_us": side["clat_ns"]["percentile"]["99.000000"] / 1e3, "cpu_us_per_io": cpu_us}


def report(case, mine, bare, key, aim):
    for name, runs in (("sarsen", mine), ("bare file", bare)):
        m = {k: statistics.median(run[k] for run in runs) for k in runs[0] if not isinstance(runs[0][k], str)}
        print(f"{case:12} {name:10} {m['iops']:9.0f} {m['bytes_per_second'] / 1e6:7.0f} {m['mean_us']:8.1f}"
              f" {m['p99_us']:8.1f} {m['cpu_us_per_io']:7.2f}", end="" if name == "sarsen" else "\n")
        if name == "sarsen":
            ratio = [a[key] / b[key] for a, b in zip(mine, bare)]
            print(f"  {key} x{statistics.median(ratio):.2f} ({min(ratio):.2f}-{max(ratio):.2f}), aim {aim},"
                  f" longest gap {max(run['longest_gap_us'] for run in mine) / 1e3:.1f} ms")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--size", default="2G")
    parser.add_argument("--memory", default="1G", help="the daemon's payload memory")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--sarsen", default=f"{ROOT}/target/release/sarsen")
    parser.add_argument("--dir", default=None, help="where the files lie (the disk that is measured)")
    parser.add_argument("--json")
    args = parser.parse_args()
    size = int(args.size[:-1]) << {"M": 20, "G": 30}[args.size[-1].upper()]
    directory, daemon = tempfile.mkdtemp(prefix="bare-bench-", dir=args.dir or ROOT + "/target"), None
    try:
        file, results = os.path.join(directory, "bare"), {}
        fio(file, size, "write", "1m", 4, False)
        daemon = Daemon(args.sarsen, directory, size, args.memory)
        print(f"{'case':12} {'':10} {'IOPS':>9} {'MB/s':>7} {'mean us':>8} {'p99 us':>8} {'CPU us':>7}")
        for case in args.only.split(","):
            load, job, key, seconds, pairs, aim = CASES[case]
            seconds, mine, bare = seconds or args.seconds, [], []
            before = daemon.wraps()
            for _ in range(pairs or args.pairs):
                if seconds < 1:
                    time.sleep(1.5)  # what the burst before left is applied
                mine.append(daemon.bench(*load, seconds))
                bare.append(fio(file, size, *job, seconds))
            report(case, mine, bare, key, aim)
            print(f"{'':23} the journal wrapped {daemon.wraps() - before:.0f} times", flush=True)
            results[case] = {"sarsen": mine, "bare": bare}
        if args.json:
            with open(args.json, "w") as out:
                json.dump(results, out, indent=1)
    finally:
        if daemon:
            daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
