"""Pictures of the measurements of `scaling.py`."""

from __future__ import annotations

from typing import Any


def draw(kind: str, measured: list[dict[str, Any]], path: str) -> None:
    """Draws a measurement."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, {"service": 2, "jobs": 2}.get(kind, 1), figsize=(9, 3.4), layout="constrained")
    {"engine": _engine, "service": _service, "jobs": _jobs, "objects": _objects}[kind](axes, measured)
    for each in figure.axes:
        each.set_ylim(0, 1.08 * each.dataLim.ymax)
    figure.savefig(path, dpi=100)


def _engine(axes: Any, measured: list[dict[str, Any]]) -> None:
    seconds, mib = zip(*measured[0]["memory"], strict=True)
    axes.plot(seconds, mib)
    axes.axvline(measured[0]["seconds_to_first_row"], color="grey", linestyle="--", label="first row")
    axes.set(xlabel="seconds", ylabel="memory of the driver, MiB")
    axes.legend()


def _service(axes: Any, measured: list[dict[str, Any]]) -> None:
    clients = [one["clients"] for one in measured]
    for name in ("p50", "p95", "p99"):
        axes[0].plot(clients, [one[name] for one in measured], marker="o", label=name)
    axes[0].set(ylabel="seconds until the result")
    axes[0].legend()
    axes[1].plot(clients, [one["results_per_second"] for one in measured], marker="o", label="results")
    axes[1].set(ylabel="results per second")
    for each in axes:
        each.set(xlabel="clients", xscale="log", xticks=clients, xticklabels=clients)
        each.minorticks_off()


def _jobs(axes: Any, measured: list[dict[str, Any]]) -> None:
    for title, samples in measured[0]["memory"].items():
        axes[0].plot(*zip(*samples, strict=True), label=title.rpartition(":")[2])
    axes[0].set(xlabel="seconds", ylabel="memory, MiB")
    axes[0].legend()
    done, size = zip(*measured[0]["store"], strict=True)
    axes[1].plot(done, [one / 2**20 for one in size])
    axes[1].axhline(measured[0]["store_mib_limit"], color="grey", linestyle="--", label="store_mib")
    axes[1].set(xlabel="jobs", ylabel="store, MiB")
    axes[1].legend()


def _objects(axes: Any, measured: list[dict[str, Any]]) -> None:
    runs = [one for one in measured if "workers" in one]
    axes.scatter([one["workers"] for one in runs], [one["objects_per_second"] for one in runs])
    axes.set(xlabel="workers", ylabel="objects per second", xticks=[1, 2])
