"""How many training batches a loading process makes: ``python -m benchmarks.bench_dataset OBJECTS [--count N]``.

Renders the first N mesh files at 32 views of 512 px and draws samples of 6 inputs at 320 px and 10 supervised crops of
192 px, as stage 1 of the published training does: from folders, from shards, and from the meshes without any files.
CPU seconds, since other programs may run beside it.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch

from meshwright.curate import (
    CuratePackOptions,
    CurateRenderOptions,
    DrawnOnDemand,
    DrawOptions,
    ObjectSource,
    SampleOptions,
    ViewSetOptions,
    batches,
    open_dataset,
    pack,
    render_objects,
)

WARM_UP = 2


def cpu_seconds_a_sample(source: ObjectSource, options: SampleOptions, samples: int) -> float:
    stream = batches(source, options, batch_size=1)
    list(itertools.islice(stream, WARM_UP))
    started = time.process_time()
    list(itertools.islice(stream, samples))
    return (time.process_time() - started) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--samples", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = tuple(sorted(arguments.objects.rglob("*.glb"))[: arguments.count])
    options = SampleOptions()
    with tempfile.TemporaryDirectory() as folder:
        dataset, shards = Path(folder) / "dataset", Path(folder) / "shards"
        render_objects(CurateRenderOptions(paths, dataset, workers=1))
        pack(CuratePackOptions(dataset, shards))
        sources: dict[str, ObjectSource] = {
            "folders": open_dataset(dataset),
            "shards": open_dataset(shards),
            "drawn on demand, 512 px": DrawnOnDemand(paths, ViewSetOptions(), DrawOptions(512)),
            "drawn on demand, 320 px": DrawnOnDemand(paths, ViewSetOptions(), DrawOptions(320)),
        }
        for name, source in sources.items():
            seconds = cpu_seconds_a_sample(source, options, arguments.samples)
            print(f"{name:25} {seconds:.3f} CPU s a sample, {1 / seconds:.1f} samples/s on one core")


if __name__ == "__main__":
    main()
