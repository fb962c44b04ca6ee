#!/usr/bin/env python3
"""Measures a volume with two copies on two daemons of this machine, over loopback, against the bare disk.

For each load, in turns: `sarsen bench` at the node that has the volume, fio's nbd engine against that node, and fio on a bare file of the same disk. CPU is that of all
processes that take part: both daemons, and fio. Everything is prefilled and O_DIRECT; ratios hold, absolute figures do not.

    benches/cluster.py [--rounds 3] [--seconds 3] [--size 1G] [--security plain-loopback|mutual-tls] [--only d1,...] [--json FILE]

Needs: a release build (cargo build --release) and fio. At its end it says what a round trip over loopback and an 8 KiB durable write cost in the same run: the sum is what a small
write with two copies cannot be faster than.
"""

import argparse, contextlib, json, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Name: pattern, size, depth.
CASES = {
    "write-d1": ("randwrite", "4k", 1), "read-d1": ("randread", "4k", 1),
    "write-d32": ("randwrite", "4k", 32), "read-d32": ("randread", "4k", 32),
    "write-128k": ("write", "128k", 4), "read-128k": ("read", "128k", 4),
    "write-1m": ("write", "1m", 4), "read-1m": ("read", "1m", 4),
}
TICK = os.sysconf("SC_CLK_TCK")


class Node:
    def __init__(self, sarsen, directory, name, security, memory):
        self.sarsen, self.dir, self.name = sarsen, os.path.join(directory, name), name
        os.mkdir(self.dir)
        self.api, self.nbd = f"{self.dir}/api.sock", f"{self.dir}/nbd.sock"
        with open(f"{self.dir}/sarsen.toml", "w") as out:
            out.write(f'data_dir = "{self.dir}/data"\nnode = "{name}"\nmemory = "{memory}"\n'
                      f'[api]\nsocket = "{self.api}"\n[nbd]\nsocket = "{self.nbd}"\n[vhost_user]\ndir = "{self.dir}/vhost"\n'
                      f'[cluster]\nlisten = "127.0.0.1:0"\nsecurity = "{security}"\n')
        self.start()
        until(lambda: os.path.exists(self.api), f"{name} does not start: see {self.dir}/log")

    def start(self):
        with open(f"{self.dir}/log", "a") as log:
            argv = [self.sarsen, "daemon", "--config", f"{self.dir}/sarsen.toml"]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def run(self, *args):
        done = subprocess.run([self.sarsen, "--api", self.api, *args], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(args)}: {done.stderr}")
        return done.stdout

    def json(self, *args):
        return json.loads(self.run("--json", *args))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def until(holds, what, seconds=60):
    end = time.time() + seconds
    while not holds():
        if time.time() > end:
            sys.exit(what)
        time.sleep(0.05)


def fio(target, rw, bs, depth, seconds, size, durable):
    argv = ["fio", "--name=b", f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}", "--output-format=json", "--randrepeat=0", f"--size={size}"]
    argv += ["--time_based", f"--runtime={max(1, round(seconds))}"] if seconds else []
    argv += target + (["--sync=dsync"] if durable else [])
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"fio: {done.stderr}{done.stdout[-2000:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["read" if rw.endswith("read") else "write"]
    percentile = side["clat_ns"].get("percentile", {})
    return {"iops": side["iops"], "mean_us": side["lat_ns"]["mean"] / 1e3, "p50_us": percentile.get("50.000000", 0) / 1e3,
            "p99_us": percentile.get("99.000000", 0) / 1e3, "ios": side["total_ios"],
            "own_cpu": (job["usr_cpu"] + job["sys_cpu"]) / 100 * side["runtime"] / 1e3}


def bare(file, case, seconds, size):
    rw, bs, depth = CASES[case]
    done = fio(["--ioengine=io_uring", "--direct=1", f"--filename={file}"], rw, bs, depth, seconds, size, rw.endswith("write"))
    return done | {"cpu_us": done["own_cpu"] / max(1, done["ios"]) * 1e6}


def over_nbd(nodes, case, seconds, size):
    rw, bs, depth = CASES[case]
    before = sum(node.cpu() for node in nodes)
    done = fio(["--ioengine=nbd", f"--uri=nbd+unix:///bench?socket={nodes[0].nbd}"], rw, bs, depth, seconds, size, False)
    cpu = sum(node.cpu() for node in nodes) - before + done["own_cpu"]
    return done | {"cpu_us": cpu / max(1, done["ios"]) * 1e6}


def inside(nodes, case, seconds):
    rw, bs, depth = CASES[case]
    before = sum(node.cpu() for node in nodes)
    done = nodes[0].json("bench", "bench", "--rw", rw, "--bs", bs, "--depth", str(depth), "--seconds", str(seconds), "--overwrite")
    cpu = sum(node.cpu() for node in nodes) - before
    return {"iops": done["iops"], "mean_us": done["mean_us"], "p50_us": done["p50_us"], "p99_us": done["p99_us"],
            "ios": done["requests"], "cpu_us": cpu / max(1, done["requests"]) * 1e6}


def round_trip():
    """Of 4 KiB there and 64 bytes back between two threads of processes, in us."""
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.recv(4096, socket.MSG_WAITALL):
            peer.send(bytes(64))
        os._exit(0)
    own = socket.create_connection(listener.getsockname())
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    payload, times = bytes(4096), []
    for _ in range(20_000):
        begun = time.perf_counter()
        own.send(payload)
        own.recv(64, socket.MSG_WAITALL)
        times.append(time.perf_counter() - begun)
    own.close()
    os.wait()
    return statistics.mean(times) * 1e6


def bench(node, rw, bs, depth, seconds):
    return node.json("bench", "bench", "--rw", rw, "--bs", bs, "--depth", str(depth), "--seconds", f"{seconds:.1f}", "--overwrite")


def whole(node, seconds=60):
    until(lambda: not node.json("pool", "show", "default")["reason"], "the pool does not become whole", seconds)


def written(node, size):
    """All of the volume at once, and more than once."""
    rate = bench(node, "write", "1m", 4, 1)["bytes_per_second"]
    bench(node, "write", "1m", 4, 2 + 2 * size / rate)


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--size", default="1G")
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--security", default="plain-loopback")
    parser.add_argument("--sarsen", default=f"{ROOT}/target/release/sarsen")
    parser.add_argument("--dir", default=None, help="where the files lie (the disk that is measured)")
    return parser


@contextlib.contextmanager
def site(args, names="ab"):
    """Nodes with a disk each, two of them where nothing else is said, and a volume of two copies that is full, a bare file of the same disk, and their size in bytes."""
    size = int(args.size[:-1]) << {"M": 20, "G": 30}[args.size[-1].upper()]
    directory, nodes = tempfile.mkdtemp(prefix="cb-", dir=args.dir or ROOT + "/target"), []
    try:
        file = os.path.join(directory, "bare")
        fio(["--ioengine=io_uring", "--direct=1", f"--filename={file}"], "write", "1m", 4, None, size, False)
        for name in names:
            nodes.append(Node(args.sarsen, directory, name, args.security, args.memory))
        a = nodes[0]
        a.run("cluster", "init")
        for other in nodes[1:]:
            token = a.json("cluster", "token", "--expires", "1h")
            other.run("join", token["address"], "--token", token["token"])
        a.run("pool", "set", "default", "--copies", "2")
        for node in nodes:
            node.run("disk", "add", f"{node.dir}/disk", "--size", f"{3 * size >> 20}M")
        until(lambda: a.json("pool", "show", "default")["pgs"]["all"] > 0, "there are no placement groups")
        a.run("volume", "create", "bench", "--size", f"{size >> 20}M")
        whole(a)
        written(a, size)
        yield nodes, file, size
    except RuntimeError as error:
        sys.exit(str(error))
    finally:
        for node in nodes:
            node.process.send_signal(signal.SIGTERM)
        for node in nodes:
            try:
                node.process.wait(20)
            except subprocess.TimeoutExpired:
                node.process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = options()
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--json")
    args, results = parser.parse_args(), {}
    with site(args) as (nodes, file, size):
        print(f"two copies, {args.security}, {args.rounds} rounds of {args.seconds:g} s, medians; one daemon a node, {os.cpu_count()} cores for all")
        print(f"{'load':11} {'':13} {'IOPS':>8} {'MB/s':>7} {'mean us':>8} {'p50 us':>8} {'p99 us':>8} {'CPU us':>7}  of the bare disk: rate, mean")
        for case in args.only.split(","):
            bs = CASES[case][1]
            scale = int(bs[:-1]) << {"k": 10, "m": 20}[bs[-1]]
            runs = {"sarsen bench": [], "fio over NBD": [], "bare file": []}
            for _ in range(args.rounds):
                runs["sarsen bench"].append(inside(nodes, case, args.seconds))
                runs["fio over NBD"].append(over_nbd(nodes, case, args.seconds, size))
                runs["bare file"].append(bare(file, case, args.seconds, size))
            middle = {name: {k: statistics.median(run[k] for run in of) for k in of[0]} for name, of in runs.items()}
            for name, m in middle.items():
                disk = middle["bare file"]
                ratio = "" if name == "bare file" else f"  x{m['iops'] / disk['iops']:.2f}, x{m['mean_us'] / disk['mean_us']:.2f}"
                print(f"{case:11} {name:13} {m['iops']:8.0f} {m['iops'] * scale / 1e6:7.0f} {m['mean_us']:8.1f} {m['p50_us']:8.1f}"
                      f" {m['p99_us']:8.1f} {m['cpu_us']:7.2f}{ratio}", flush=True)
            results[case] = runs
        trip = round_trip()
        write = fio(["--ioengine=io_uring", "--direct=1", f"--filename={file}"], "write", "8k", 1, args.seconds, size, True)["mean_us"]
        print(f"a round trip over loopback {trip:.1f} us (by Python), an 8 KiB sequential durable write {write:.1f} us: together {trip + write:.1f} us")
        if args.json:
            with open(args.json, "w") as out:
                json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
