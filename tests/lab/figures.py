#!/usr/bin/env python3
"""Draws the figures of the benchmark, as PNG and SVG, from the JSON that `lab bench` wrote.

  python3 -m venv target/figures && target/figures/bin/pip install matplotlib
  target/figures/bin/python tests/lab/figures.py target/bench.json target/figures

bars          what one flow gets over each set of links: each link alone without netcombiner, what
              the links can carry together, and all links through netcombiner; whiskers are the
              quartiles over the repeats
rate-change   throughput over time while a link's rate is halved or doubled
link-lost     throughput over time while a link is cut and comes back

A figure whose cases were not measured is left out, and said so.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed
import matplotlib.pyplot as plt  # noqa: E402

# The palette of Okabe and Ito, which the colour-blind can tell apart.
BOND, SUM, LINKS = "#D55E00", "#999999", ["#0072B2", "#56B4E9", "#009E73", "#F0E442"]

STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "netcombiner",  # the same figures, the same file
}

# Inches: the width of a page's text.
WIDTH = 6.3


def quartiles(values):
    """First quartile, median and third quartile; of one value three times the same."""
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def figures(values):
    """Median and the two lengths of a whisker."""
    low, middle, high = quartiles(values)
    return middle, [[middle - low], [high - middle]]


def one_cubic_flow(case, way):
    """The run of a case with one CUBIC flow over the UDP transport, or None."""
    for run in case["runs"]:
        if (run["way"], run["congestion"], run["flows"], run["transport"]) == (way, "cubic", 1, "udp"):
            return run
    return None


def bar(axes, x, width, values, **style):
    height, whiskers = figures(values)
    axes.bar(x, height, width, **style)
    if len(values) > 1:
        axes.errorbar(x, height, whiskers, color="black", capsize=1.5, linewidth=0.7)


def label(case, data):
    """A case's name, and below it each kind of its links, narrow enough for its place."""
    names = [data["links"][place]["name"] for place in case["links"]]
    kinds = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return "\n".join([case["case"], *("\n".join(line.rsplit(" ", 1)) if len(line) > 9 else line for line in kinds)])


def bars(data):
    """Raw links, their sum and the bond, per set of links, download above upload."""
    fraction = data["payload"]["fraction"]
    ways = [way for way in ("down", "up") if any(one_cubic_flow(case, way) for case in data["steady"])]
    if not ways:
        return None
    figure, panels = plt.subplots(
        len(ways), 1, figsize=(WIDTH, 2.4 * len(ways) + 0.5), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, way in zip(panels[:, 0], ways):
        for at, case in enumerate(data["steady"]):
            run = one_cubic_flow(case, way)
            links = [data["links"][place] for place in case["links"]]
            width = 0.84 / (len(links) + 2)
            x = at - 0.42 + width / 2
            for i, link in enumerate(links):
                raw = [single["mbps"] for single in link["raw"][way]]
                bar(axes, x, width, raw, color=LINKS[i])
                x += width
            # What can be had at most has no spread: it follows from the rates and the headers.
            axes.bar(x, case["sum_mbps"] * fraction, width, color="white", edgecolor=SUM, hatch="////", linewidth=0.6)
            if run:
                bar(axes, x + width, width, [repeat["mbps"] for repeat in run["repeats"]], color=BOND)
        axes.set_ylabel(f"{'download' if way == 'down' else 'upload'}, Mbit/s")
    names = [label(case, data) for case in data["steady"]]
    panels[-1, 0].set_xticks(range(len(names)), names, fontsize=5.5)
    most = max(len(case["links"]) for case in data["steady"])
    handles = [plt.Rectangle((0, 0), 1, 1, color=LINKS[i]) for i in range(most)]
    handles += [
        plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=SUM, hatch="////"),
        plt.Rectangle((0, 0), 1, 1, color=BOND),
    ]
    labels = [f"link {i + 1} alone, raw" for i in range(most)]
    labels += ["sum of the links (payload)", "netcombiner, one flow"]
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def possible(case, repeat, ticks, tick, fraction):
    """What the links can carry of the flow at each tick, from the case's steps."""
    rates = [link["mbps"] for link in case["links"]]
    cut = [False] * len(rates)
    steps = sorted(repeat["followed"], key=lambda step: step["at_s"])
    course = []
    for n in range(ticks):
        while steps and steps[0]["at_s"] <= n * tick + 1e-9:
            step = steps.pop(0)
            if step["change"] in ("cut", "restore"):
                cut[step["link"]] = step["change"] == "cut"
            elif step["change"] == "rate":
                rates[step["link"]] = step["rate_mbps"]
        course.append(fraction * sum(rate for rate, gone in zip(rates, cut) if not gone))
    return course


def over_time(data, wanted, words):
    """One panel a case: what each link carried (stacked), the flow's goodput, and what was there."""
    cases = [case for case in data["changing"] if case["case"] in wanted and case["way"] == "down"]
    if not cases:
        return None
    tick, fraction = data["tick_s"], data["payload"]["fraction"]
    figure, panels = plt.subplots(
        len(cases), 1, figsize=(WIDTH, 2.1 * len(cases) + 0.4), squeeze=False, layout="constrained"
    )
    for axes, case in zip(panels[:, 0], cases):
        repeats = case["repeats"]
        ticks = min(len(repeat["series"]) for repeat in repeats)
        time = [n * tick for n in range(ticks)]
        at = [quartiles([repeat["series"][n] for repeat in repeats]) for n in range(ticks)]
        # In the links' bytes are all headers; scaled to payload, so that the heights compare.
        shares = []
        for link in range(len(case["links"])):
            size = min(ticks, *(len(repeat["links"][link]) for repeat in repeats))
            share = [
                fraction * statistics.median(repeat["links"][link][n] for repeat in repeats) for n in range(size)
            ]
            shares.append(share + [0.0] * (ticks - size))
        names = [f"by link {i + 1} ({link['name']})" for i, link in enumerate(case["links"])]
        axes.stackplot(time, shares, colors=LINKS, alpha=0.45, step="post", labels=names, linewidth=0)
        course = possible(case, repeats[0], ticks, tick, fraction)
        axes.step(time, course, where="post", color="black", linestyle="--", linewidth=0.9, label="what the links can carry")
        axes.step(time, [middle for _, middle, _ in at], where="post", color=BOND, linewidth=1.1, label="goodput of the flow")
        if len(repeats) > 1:
            low, high = [low for low, _, _ in at], [high for _, _, high in at]
            axes.fill_between(time, low, high, step="post", color=BOND, alpha=0.25, linewidth=0)
        for step in repeats[0]["followed"]:
            label = words[step["change"]].format(link=step["link"] + 1, mbps=step["rate_mbps"] or 0)
            axes.axvline(step["at_s"], color="black", linewidth=0.5)
            axes.annotate(
                label, (step["at_s"], 1.0), (3, -2), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=7,
            )
        axes.set_xlim(0, ticks * tick)
        axes.set_ylim(0, 1.25 * max(course))
        axes.set_ylabel("Mbit/s")
    panels[-1, 0].set_xlabel("seconds from the start of the flow")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="what `lab bench` wrote")
    parser.add_argument("directory", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    try:
        data = json.loads(arguments.json.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"figures: cannot read {arguments.json}: {error}")
    plt.rcParams.update(STYLE)
    drawn = {
        "bars": bars(data),
        "rate-change": over_time(data, ("half", "double"), {"rate": "link {link} has {mbps:g} Mbit/s"}),
        "link-lost": over_time(data, ("cut_first", "cut_second"), {"cut": "link {link} is cut", "restore": "it is back"}),
    }
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        if figure is None:
            print(f"figures: {name}: its cases were not measured", file=sys.stderr)
            continue
        for kind in ("png", "svg"):
            path = arguments.directory / f"{name}.{kind}"
            figure.savefig(path, dpi=200, metadata={"Date": None} if kind == "svg" else None)
            print(path)


if __name__ == "__main__":
    main()
