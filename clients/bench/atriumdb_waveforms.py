"""Drives AtriumDB: writes recorded curves, counts its bytes, reads ten-second windows, and prints what it measured.

Arguments: a directory of its own, a file of little-endian 16-bit samples, the samples a second, the number of equal
pieces the file consists of (one device each), how often the whole is written. Prints one line of JSON.
AtriumDB is GPL-3.0 and is only ever run from here, never linked.
"""

import json
import pathlib
import random
import sys
import time

import numpy
from atriumdb import AtriumSDK

directory, samples_file, rate, pieces, runs = sys.argv[1:6]
rate, pieces, runs = int(rate), int(pieces), int(runs)
samples = numpy.fromfile(samples_file, dtype="<i2").reshape(pieces, -1)
START_S = 1_700_000_000
WINDOW_S = 10
WINDOWS = 200

writes, reads, kept = [], [], []
for run in range(runs):
    place = pathlib.Path(directory) / f"run{run}"
    sdk = AtriumSDK.create_dataset(dataset_location=place)
    measure = sdk.insert_measure("ECG", freq=rate, freq_units="Hz", units="count")
    devices = [sdk.insert_device(f"device{number}") for number in range(pieces)]
    began = time.perf_counter()
    for device, piece in zip(devices, samples):
        sdk.write_segment(measure, device, piece.astype(numpy.int64), START_S, freq=rate, freq_units="Hz", time_units="s")
    writes.append(samples.size / (time.perf_counter() - began))
    kept.append(sum(file.stat().st_size for file in place.rglob("*.tsc")) / samples.size)
    seconds = samples.shape[1] // rate
    draw = random.Random(run)
    times = []
    for _ in range(WINDOWS):
        device = draw.choice(devices)
        start = START_S + draw.randrange(max(1, seconds - WINDOW_S))
        began = time.perf_counter()
        _, _, values = sdk.get_data(measure, start, start + WINDOW_S, device_id=device, time_units="s", analog=False)
        times.append(1e3 * (time.perf_counter() - began))
        # Its end is inclusive where the period is no whole number of nanoseconds.
        if abs(len(values) - WINDOW_S * rate) > 1:
            raise SystemExit(f"a window has {len(values)} samples")
    reads.append(sorted(times)[len(times) // 2])
    sdk.close()

print(json.dumps({"samples_per_s": writes, "window_p50_ms": reads, "bytes_per_sample": kept}))
