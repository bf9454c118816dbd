#!/usr/bin/env python3
"""Prove shapes that differ in one respect, and plot what grows with it: time, memory, bytes.

    cargo build --release
    python3 benches/sweep.py --svg docs/sweep.svg --json sweep.jsonl

Each point is `poa bench prove` with attribution, the run with the median CPU time of `--repeat`. One of tokens, depth and width changes, the others are
nanogpt's: four layers of width 64, 64 tokens. `--json` gets a line a point, with the machine; `--from` plots such lines again instead of measuring.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

BASE = {"tokens": 64, "depth": 4, "width": 64}
SWEEPS = {
    "tokens": [16, 32, 64, 128, 256, 512],
    "depth": [1, 2, 4, 8, 16, 32],
    "width": [32, 64, 128, 256, 512],
}
FIGURES = {"cpu_seconds": "CPU s", "peak_rss_mb": "memory, MB", "proof_bytes": "proof, kB", "verify_seconds": "verified, ms"}
SCALES = {"proof_bytes": 1e-3, "verify_seconds": 1e3}
PANEL, LEFT, TOP, GAP = (190, 120), 56, 34, 48


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poa", type=Path, default=Path("target/release/poa"), help="poa's binary")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each point")
    parser.add_argument("--json", type=Path, help="file for all figures, a line a point")
    parser.add_argument("--svg", type=Path, help="file for the plot")
    parser.add_argument("--from", dest="given", type=Path, help="lines of an earlier --json, instead of measuring")
    chosen = parser.parse_args()
    if chosen.given is None and not chosen.poa.is_file():
        parser.error(f"{chosen.poa} isn't there: run `cargo build --release`, or give --poa")
    if not 1 <= chosen.repeat <= 100:
        parser.error("--repeat is 1 to 100")
    return chosen


def shape(point):
    heads = max(1, point["width"] // 16)
    return f"layers={point['depth']},width={point['width']},heads={heads},kv-heads={heads},ff={4 * point['width']},vocab=128"


def measured(poa, repeat, axis, value):
    point = {**BASE, axis: value}
    options = ["--shape", shape(point), "--tokens", str(point["tokens"]), "--repeat", str(repeat)]
    done = subprocess.run([str(poa), "bench", "prove", *options, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found = json.loads(done.stdout)
    figures = {key: found[key] for key in (*FIGURES, "seconds", "committed_elements", "lookups", "security_bits", "machine")}
    return {"axis": axis, "value": value, **point, **figures}


def points(chosen):
    if chosen.given:
        return [json.loads(line) for line in chosen.given.read_text().splitlines()]
    rows = []
    for axis, values in SWEEPS.items():
        for value in values:
            print(f"  {axis} {value} …", file=sys.stderr)
            rows.append(measured(chosen.poa, chosen.repeat, axis, value))
    return rows


def rounded(value):
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def panel(rows, axis, figure, left, top):
    """One figure against one axis, both of their own scale: positions are of the values' order, heights are linear from zero."""
    own = [(row["value"], row[figure] * SCALES.get(figure, 1)) for row in rows if row["axis"] == axis]
    width, height = PANEL
    most = max(value for _, value in own)
    at = [(left + width * i / max(1, len(own) - 1), top + height * (1 - value / most)) for i, (_, value) in enumerate(own)]
    out = [f"<rect x='{left}' y='{top}' width='{width}' height='{height}' fill='none' stroke='#bbb'/>"]
    out.append("<polyline fill='none' stroke='#2563a8' stroke-width='2' points='" + " ".join(f"{x:.1f},{y:.1f}" for x, y in at) + "'/>")
    for (x, y), (name, value) in zip(at, own):
        out.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='#2563a8'><title>{axis} {name}: {rounded(value)}</title></circle>")
        out.append(f"<text x='{x:.1f}' y='{top + height + 14}' text-anchor='middle' fill='#555'>{name}</text>")
    out.append(f"<text x='{left - 4}' y='{top + 10}' text-anchor='end' fill='#555'>{rounded(most)}</text>")
    out.append(f"<text x='{left - 4}' y='{top + height}' text-anchor='end' fill='#555'>0</text>")
    return out


def plot(rows):
    width, height = PANEL
    step_x, step_y = width + LEFT + 16, height + GAP
    total = (LEFT + step_x * len(SWEEPS), TOP + step_y * len(FIGURES))
    out = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{total[0]}' height='{total[1]}' font-family='sans-serif' font-size='11'>"]
    out.append(f"<rect width='{total[0]}' height='{total[1]}' fill='white'/>")
    for column, axis in enumerate(SWEEPS):
        for line, (figure, name) in enumerate(FIGURES.items()):
            left, top = LEFT + 16 + column * step_x, TOP + line * step_y
            out.append(f"<text x='{left}' y='{top - 6}' font-weight='bold'>{name}, by {axis}</text>")
            out += panel(rows, axis, figure, left, top)
    return "\n".join([*out, "</svg>", ""])


def main():
    chosen = arguments()
    rows = points(chosen)
    print(f"{'':<8} {'':>6} {'wall s':>8} {'CPU s':>8} {'MB':>7} {'kB':>7} {'verified ms':>12}")
    for row in rows:
        print(
            f"{row['axis']:<8} {row['value']:>6} {row['seconds']:>8.2f} {row['cpu_seconds']:>8.2f} {row['peak_rss_mb']:>7.0f} "
            f"{row['proof_bytes'] / 1000:>7.1f} {1000 * row['verify_seconds']:>12.1f}"
        )
    if chosen.json:
        chosen.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if chosen.svg:
        chosen.svg.write_text(plot(rows))


if __name__ == "__main__":
    main()
