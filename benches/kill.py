#!/usr/bin/env python3
"""Measures how long I/O stands still when a node is killed.

Three daemons with a disk file each, all members of the manager, and a volume of two copies, as in `cluster.py`. `sarsen bench` writes at random at depth 8 at the first;
amid that one of the other two is killed with -9, in turns. The longest request of the run is the pause. Then the node comes back, and when the pool is whole it is the
other's turn. In each round the same is run without a kill, to see what the machine alone makes of it.

    benches/kill.py [--rounds 100] [--size 256M] [--security plain-loopback|mutual-tls] [--json FILE]

Needs: a release build (cargo build --release).
"""

import json, os, signal, threading, time
from cluster import bench, options, site, until, whole


def longest(nodes, seconds, victim=None):
    """Of the requests in so many seconds, in ms; a third into them the victim is killed."""
    done = {}
    load = threading.Thread(target=lambda: done.update(bench(nodes[0], "randwrite", "4k", 8, seconds)))
    load.start()
    time.sleep(seconds / 3)
    if victim:
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
    load.join()
    return done["max_us"] / 1e3


def at(pauses, part):
    return sorted(pauses)[min(len(pauses) - 1, int(len(pauses) * part))]


def main():
    parser = options()
    parser.set_defaults(rounds=100, size="256M", seconds=3)
    parser.add_argument("--json")
    args, quiet, killed = parser.parse_args(), [], []
    with site(args, "abc") as (nodes, _, _):
        until(lambda: len(nodes[0].json("node", "list")["nodes"]) == 3, "there are not three nodes")
        for number in range(args.rounds):
            quiet.append(longest(nodes, 1))
            victim = nodes[1 + number % 2]
            killed.append(longest(nodes, args.seconds, victim))
            victim.start()
            until(lambda: os.path.exists(victim.api), "it does not start")
            whole(nodes[0], 120)
        print(f"the longest request, ms, of {args.rounds} runs each, {args.security}")
        for name, pauses in {"nothing killed": quiet, "one node killed": killed}.items():
            print(f"{name:16} median {at(pauses, 0.5):6.0f}  p90 {at(pauses, 0.9):6.0f}  p99 {at(pauses, 0.99):6.0f}  most {max(pauses):6.0f}")
        if args.json:
            with open(args.json, "w") as out:
                json.dump({"quiet": quiet, "killed": killed}, out, indent=1)


if __name__ == "__main__":
    main()
