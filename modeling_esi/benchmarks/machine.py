"""The machine that measures: what it is, how fast it multiplies matrices, and what torch takes of its memory."""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from modeling_esi.benchmarks.measured import malloc_setting

MATRIX_SIZE, MATRIX_PRODUCTS = 4096, 20


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use(device: str, num_threads: int) -> torch.device:
    """Make this process compute there, with so many threads on the CPU, and with float32 as float32.

    On GPUs torch lets convolutions round float32 to TF32 by default, which matrix products do not: the same formula
    written one way or the other would then differ in speed and result.
    """
    torch.set_num_threads(num_threads)
    chosen = torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(torch.cuda.current_device() if chosen.index is None else chosen.index)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return chosen


def describe(device: str, num_threads: int) -> dict[str, Any]:
    """Processor, memory, versions and, for `cuda`, the GPU and its driver: what has to stand beside every figure."""
    machine = {
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": num_cores(),
        "num_threads": num_threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "malloc": malloc_setting(),
        "device": device,
    }
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        machine |= {
            "gpu": gpu.name,
            "gpu_memory_gb": round(gpu.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        }
    return machine


def cpu_name() -> str:
    """The processor's name as Linux tells it, or as Python does elsewhere."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def driver_version() -> str:
    """Version of the NVIDIA driver, "unknown" where `nvidia-smi` is not at hand."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[0].strip()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(
    dtype: torch.dtype, device: torch.device, size: int = MATRIX_SIZE, num_products: int = MATRIX_PRODUCTS
) -> float:
    """Operations per second of a product of two `size x size` matrices, the best of `num_products`."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = _kernel_seconds if device.type == "cuda" else _call_seconds
    torch.matmul(left, right)
    return 2 * size**3 / min(seconds(lambda: torch.matmul(left, right)) for _ in range(num_products))


def _call_seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _kernel_seconds(call: Callable[[], object]) -> float:
    """By the GPU's clock: a product takes it 0.2 ms, and Python's launch is no part of its rate."""
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started.record()
    call()
    ended.record()
    ended.synchronize()
    return started.elapsed_time(ended) / 1000


def allocated_peak(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that torch's allocator has given out at most during `call`, above those it had given out before.

    Exact for tensors, also those that live within one operation. On a GPU it is the allocator's own count; on a CPU it
    comes from the profiler's record of every allocation. What a matrix library allocates for itself is not seen.
    """
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            call()
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    events = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    if not events:
        return 0
    held = [event["args"]["Total Allocated"] for event in events]
    before = held[0] - events[0]["args"]["Bytes"]
    return max(before, *held) - before
