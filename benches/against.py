#!/usr/bin/env python3
"""Measure this tree's prover against an earlier commit's, alternately on this machine, and print ratios of CPU seconds.

    cargo build --release
    git worktree add /tmp/earlier 0d262f9 && (cd /tmp/earlier && cargo build --release)
    python3 benches/against.py --earlier /tmp/earlier/target/release/poa --repeat 5

Each workload is run by both programs in turn, `--repeat` times, and the medians compared: a machine's mood meets both sides. `--earlier` is another
tree's program (built with that tree's own options); `--json FILE` keeps all figures.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NANOGPT = "layers=4,width=64,heads=4,kv-heads=4,ff=256,vocab=128"
GPT2 = "layers=12,width=768,heads=12,kv-heads=12,ff=3072,vocab=50257"

# Name, arguments of `bench prove`, whether it is run unless asked for, whether this side takes a kept commitment of the model (the earlier commits
# it anew, which is what it did for models of that size).
WORKLOADS = {
    "nanogpt-forward": (["--shape", NANOGPT, "--tokens", "64", "--forward-only"], True, False),
    "nanogpt-all": (["--shape", NANOGPT, "--tokens", "64"], True, False),
    "gpt2-forward": (["--shape", GPT2, "--tokens", "64", "--forward-only"], False, False),
    # What a request costs when the weights' ranges are a registration's.
    "gpt2-request": (["--shape", GPT2, "--tokens", "64", "--forward-only", "--assume-weight-ranges"], False, False),
    "gpt2-kept": (["--shape", GPT2, "--tokens", "64", "--forward-only", "--assume-weight-ranges"], False, True),
}
KEYS = ("seconds", "cpu_seconds", "peak_rss_mb", "proof_bytes", "verify_seconds", "security_bits")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name, (_, is_usual, _) in WORKLOADS.items() if is_usual]
    parser.add_argument("workloads", nargs="*", default=usual, help=f"among {', '.join(WORKLOADS)}; by default {', '.join(usual)}")
    parser.add_argument("--earlier", type=Path, required=True, help="the earlier program")
    parser.add_argument("--poa", type=Path, default=Path("target/release/poa"), help="this tree's program")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each side")
    parser.add_argument("--json", type=Path, help="file for all figures")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if chosen.repeat < 1:
        parser.error("--repeat is at least 1")
    for program in (chosen.poa, chosen.earlier):
        if not program.is_file():
            parser.error(f"{program} isn't there")
    return chosen


def measured(program, options):
    """One proof's figures."""
    done = subprocess.run([str(program), "bench", "prove", *options, "--json"], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    return {key: found[key] for key in KEYS if key in found}


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main():
    chosen = arguments()
    everything = {}
    print(f"{'workload':<18} {'side':<8} {'wall s':>8} {'CPU s':>8} {'MB':>7} {'kB':>7} {'verified ms':>12}")
    for name in chosen.workloads:
        options, _, is_kept = WORKLOADS[name]
        sides = {"earlier": [], "this": []}
        with tempfile.TemporaryDirectory() as directory:
            own = [*options, "--keep", directory] if is_kept else options
            if is_kept:
                print(f"  {name}: a proof that keeps the commitment …", file=sys.stderr)
                measured(chosen.poa, own)
            for turn in range(chosen.repeat):
                print(f"  {name}: {turn + 1} of {chosen.repeat} …", file=sys.stderr)
                sides["earlier"].append(measured(chosen.earlier, options))
                sides["this"].append(measured(chosen.poa, own))
        everything[name] = sides
        both = {side: medians(runs) for side, runs in sides.items()}
        for side, m in both.items():
            print(
                f"{name:<18} {side:<8} {m['seconds']:>8.2f} {m['cpu_seconds']:>8.2f} {m['peak_rss_mb']:>7.0f} "
                f"{m['proof_bytes'] / 1000:>7.1f} {1000 * m['verify_seconds']:>12.1f}"
            )
        ratio = both["earlier"]["cpu_seconds"] / both["this"]["cpu_seconds"]
        spread = [run["cpu_seconds"] for run in sides["this"]]
        print(f"{name:<18} {'ratio':<8} {both['earlier']['seconds'] / both['this']['seconds']:>8.2f} {ratio:>8.2f}   (CPU s {min(spread):.2f} to {max(spread):.2f})")
    if chosen.json:
        chosen.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
