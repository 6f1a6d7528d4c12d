"""The memory of a renderer over a long job: a process of its own, watched tenth by tenth."""

import json
import subprocess
import sys
import threading
from itertools import pairwise

import psutil

from benchmarks.measure import Line
from benchmarks.stack import Renderer, Running, running_stack
from benchmarks.workload import Scale, prompts, recipe
from jobs.job import JobRequest

ROW = "memory"
TENTHS = 10


def run(scale: Scale) -> list[Line]:
    """The line of this row: the peak of the last tenth beside that of the second."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(scale.memory_images)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    peaks = json.loads(done.stdout.splitlines()[-1])
    second, last = peaks[1], peaks[-1]
    return [
        Line(
            row=ROW,
            what=f"peak of a renderer over {scale.memory_images} images, the last tenth",
            against="the second tenth",
            unit="MiB",
            ours=last,
            theirs=second,
            ratio=last / second,
            most=1.05,
            note="resident set, every tenth: " + ", ".join(f"{peak:.0f}" for peak in peaks),
            rounds={"tenths": peaks},
        )
    ]


def watch(running: Running, images: int) -> list[float]:
    """Peak resident set, in MiB, while each tenth of the job's images was being delivered."""
    process, pause = psutil.Process(), threading.Event()
    marks = [images * part // TENTHS for part in range(TENTHS + 1)]
    peaks = [0.0] * TENTHS
    while (done := running.images_done) < images:
        part = next(n for n, (low, high) in enumerate(pairwise(marks)) if low <= done < high)
        peaks[part] = max(peaks[part], process.memory_info().rss / 2**20)
        pause.wait(0.02)
    return peaks


def main(count: int) -> None:
    """Render a job of `count` images and print the peaks of its tenths as JSON."""
    one = recipe()
    with running_stack() as stack:
        renderer = Renderer(stack, one)
        try:
            # Shards so small that every tenth has several.
            request = JobRequest(seed=7, shard_images=_shard(count, one.batch_images))
            job = stack.submit(prompts(count, 1), request)
            running = renderer.start(job)
            try:
                peaks = watch(running, count)
            finally:
                running.finish()
        finally:
            renderer.close()
    print(json.dumps(peaks))


def _shard(count: int, batch: int) -> int:
    return max(batch, count // (4 * TENTHS) // batch * batch)


if __name__ == "__main__":
    main(int(sys.argv[1]))
