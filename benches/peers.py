#!/usr/bin/env python3
"""Prove the same transformer shapes with poa and with EZKL, one after another on this machine, and print both sides.

    cargo build --release
    python3 benches/peers.py --peers ../shared/peers/ezkl --python VENV/bin/python block_small block

`--peers` is a folder with EZKL's scripts (`export_models.py`, `run_ezkl.py`; its README says how to install them), `--python` the interpreter that
has EZKL. It is copied to a temporary folder first: nothing is written into it. Without EZKL (`--skip-peer`) only poa is measured.

A shape's poa side proves at least as much as EZKL's: embedding, logits over a vocabulary and greedy choice come on top of the blocks, and weights are
committed rather than fixed in a key. It is measured forward only, and with gradients and attribution, for which EZKL has no counterpart.
"""
import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# EZKL's model, its options, and the same decoder for poa.
SHAPES = {
    "block_small": (["--inner-columns", "4", "--scales", "12"], "layers=1,width=32,heads=2,kv-heads=2,ff=128,vocab=256", 8),
    "block": ([], "layers=1,width=64,heads=4,kv-heads=4,ff=256,vocab=256", 16),
    "gpt_l2_d64_t16": ([], "layers=2,width=64,heads=4,kv-heads=4,ff=256,vocab=256", 16),
    "gpt_l4_d64_t32": ([], "layers=4,width=64,heads=4,kv-heads=4,ff=256,vocab=256", 32),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["block_small"], help=f"among {', '.join(SHAPES)}")
    parser.add_argument("--poa", type=Path, default=Path("target/release/poa"), help="poa's binary")
    parser.add_argument("--peers", type=Path, default=Path("../shared/peers/ezkl"), help="folder with EZKL's scripts")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has EZKL")
    parser.add_argument("--skip-peer", action="store_true", help="measure poa only")
    parser.add_argument("--json", type=Path, help="file for all figures")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.models if name not in SHAPES]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    if not chosen.poa.is_file():
        parser.error(f"{chosen.poa} isn't there: run `cargo build --release`, or give --poa")
    if not chosen.skip_peer and not (chosen.peers / "run_ezkl.py").is_file():
        parser.error(f"{chosen.peers} has no run_ezkl.py: give --peers, or --skip-peer")
    return chosen


def poa(binary, shape, tokens, forward_only):
    """Figures of one proof; rows are what `poa bench prove --json` says."""
    command = [str(binary), "bench", "prove", "--shape", shape, "--tokens", str(tokens), "--json"]
    done = subprocess.run(command + ["--forward-only"] * forward_only, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    keys = ("seconds", "cpu_seconds", "peak_rss_mb", "proof_bytes", "verify_seconds", "security_bits")
    return {key: found[key] for key in keys}


def ezkl(folder, python, model, options):
    """Figures of EZKL's own script. Its key generation is per model, and counted apart."""
    subprocess.run([python, "export_models.py", model], cwd=folder, check=True, stdout=sys.stderr)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([python, "run_ezkl.py", model, *options], cwd=folder, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads((folder / "runs" / model / "figures.json").read_text())
    return {
        "seconds": found["prove_s"] + found["witness_s"],
        "cpu_seconds": found["prove_cpu_s"] + found["witness_cpu_s"],
        "keygen_seconds": found["keygen_s"],
        "all_cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_rss_mb": found["peak_rss_mb"],
        "proof_bytes": found["proof_bytes"],
        "verify_seconds": found["verify_s"],
        "k": found["k"],
    }


def row(name, figures):
    return (
        f"{name:<36} {figures['seconds']:>9.2f} {figures['cpu_seconds']:>9.2f} {figures.get('keygen_seconds', 0):>9.1f} "
        f"{figures['peak_rss_mb']:>9.0f} {figures['proof_bytes']:>9} {figures['verify_seconds']:>9.3f}"
    )


def main():
    chosen = arguments()
    figures = {}
    print(f"{'':<36} {'prove s':>9} {'CPU s':>9} {'keygen s':>9} {'peak MB':>9} {'bytes':>9} {'verify s':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "ezkl"
        if not chosen.skip_peer:
            shutil.copytree(chosen.peers, folder)
        for model in chosen.models:
            options, shape, tokens = SHAPES[model]
            print(f"{model}: {shape}, {tokens} tokens")
            runs = {
                "poa, forward": lambda: poa(chosen.poa, shape, tokens, True),
                "poa, forward, backward, attribution": lambda: poa(chosen.poa, shape, tokens, False),
            }
            if not chosen.skip_peer:
                runs["EZKL, forward"] = lambda: ezkl(folder, chosen.python, model, options)
            sides = {}
            for name, run in runs.items():
                sides[name] = run()
                print(row(name, sides[name]), flush=True)
            figures[model] = sides
    if chosen.json:
        partial = chosen.json.with_suffix(".partial")
        partial.write_text(json.dumps(figures, indent=2) + "\n")
        partial.rename(chosen.json)


if __name__ == "__main__":
    main()
