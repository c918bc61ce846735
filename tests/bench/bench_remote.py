"""What far files cost, and what several processes gain: ``python -m tests.bench.bench_remote [--gigabytes 2]``.

Requests, bytes, processor time and memory of `inspect` at a web server on the loopback; `filter` by one process and by
two, against `cp`; a run that is killed when 80 % of its shards are finished, and what resuming it costs; the plan that
every process makes of 500,000 keys in 200 shards of 1 TB. Files are holes where their content does not matter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.harness import bench_folder
from tests.servers.base import Asked, Handler, serving

CKPTOOL = [sys.executable, "-m", "ckptool"]


def run(*arguments: str) -> tuple[float, float, int, str]:
    """Wall and processor seconds, peak memory in bytes, and stdout of one command."""
    measure = Path(__file__).with_name("measure.py")
    command = [sys.executable, "-I", "-S", measure, *CKPTOOL, *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, code, wall, rss, _ = done.stderr.split("\n")[-2].split()
    assert code == "0", done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(wall), cpu, int(rss), done.stdout


def sparse_shards(folder: Path, shards: int, keys: int, nbytes: int) -> None:
    """A model of so many keys and bytes in so many files, of which only the headers take space."""
    folder.mkdir()
    weight_map = {}
    each = keys // shards
    rows = nbytes // shards // each // 2048 or 1
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header = {}
        for at in range(each):
            key = f"model.layers.{number}.mlp.experts.{at // 3}.{('gate', 'up', 'down')[at % 3]}_proj.weight"
            start = at * rows * 2048
            header[key] = {"dtype": "BF16", "shape": [rows, 1024], "data_offsets": [start, start + rows * 2048]}
            weight_map[key] = name
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + each * rows * 2048)
    index = {"metadata": {"total_size": each * shards * rows * 2048}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def real_shards(folder: Path, gigabytes: float) -> int:
    """A folder of shards of 100 MB of noise; its bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    weight_map, total = {}, 0
    count = max(1, round(gigabytes * 10))
    noise = np.random.default_rng(1).integers(0, 1 << 16, (5, 10_000_000), np.uint16)
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        block = (noise + np.uint16(number)).view(np.float16)
        save_file({f"layers.{number}.{at}.weight": block[at] for at in range(5)}, folder / name)
        weight_map |= {f"layers.{number}.{at}.weight": name for at in range(5)}
        total += block.nbytes
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def serve(folder: Path, handler: Handler, asked: Asked) -> None:
    """A range of a file of the folder, without reading more of it."""
    path = folder / asked.path.lstrip("/")
    if not path.is_file():
        handler.say(404)
        return
    size = path.stat().st_size
    first, stop = asked.range or (0, size)
    stop = min(stop, size)
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(stop - first)
    handler.say(206, data, Content_Range=f"bytes {first}-{stop - 1}/{size}", ETag=f'"{size}"')


def remote(folder: Path) -> None:
    make = "import sys, torch; torch.save({f'layers.{n}.weight': torch.zeros(1000) for n in range(300)}, sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, folder / "one.pth"], check=True)
    sparse_shards(folder / "one", 1, 1000, 10**10)
    sparse_shards(folder / "twenty", 20, 2000, 10**11)
    sparse_shards(folder / "many", 96, 497_184, 10**12)
    cases = {
        "safetensors": "one/model-00001-of-00001.safetensors",
        "zip": "one.pth",
        "20 shards": "twenty/model.safetensors.index.json",
        "497,184 keys in 96 shards": "many/model.safetensors.index.json",
    }
    with serving(lambda handler, asked: serve(folder, handler, asked)) as (url, log):
        for name, path in cases.items():
            log.asked.clear()
            wall, cpu, rss, out = run("inspect", f"{url}/{path}", "--json")
            most = max(sum(each.path == one.path for each in log.asked) for one in log.asked)
            read = json.loads(out)["transfer"]
            print(
                f"inspect {name}: {len(log.asked)} requests, at most {most} a file, {read['bytes']:,} bytes, "
                f"{wall:.1f} s, {cpu:.1f} s of processor, {rss >> 20} MB",
                flush=True,
            )
    wall, cpu, rss, _ = run("inspect", str(folder / "many"), "--json")
    print(f"the same 96 shards on disk: {wall:.1f} s, {cpu:.1f} s of processor, {rss >> 20} MB", flush=True)
    shutil.rmtree(folder / "many")


ONE_THREAD = "import ckptool.engine.filling as f; f.THREADS = 1; from ckptool.__main__ import main; main()"


class Cost(NamedTuple):
    """What commands that ran at the same time took: wall and processor seconds, bytes written."""

    wall: float
    cpu: float
    written: int

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} s of processor, {self.written / 1e9:.2f} GB written"


def cost(*commands: list[str]) -> Cost:
    """Run commands at the same time, as processes of one launcher where there are several."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = []
    for number, command in enumerate(commands):
        ranks = {"RANK": str(number), "WORLD_SIZE": str(len(commands))} if len(commands) > 1 else {}
        running.append(subprocess.Popen(command, env={**os.environ, **ranks}, stdout=subprocess.DEVNULL))
    codes = [process.wait() for process in running]
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert codes == [0] * len(commands)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, (after.ru_oublock - before.ru_oublock) * 512)


def local(folder: Path, gigabytes: float) -> None:
    """Interleaved: cp, one process, two, one and two with one thread each; then a resume after a kill at 80 %."""
    source, out = folder / "in", folder / "out"
    nbytes = real_shards(source, gigabytes)
    options = ["filter", str(source), "--max-shard", "100MB", "-o", str(out)]
    ckptool, lean = [*CKPTOOL, *options], [sys.executable, "-c", ONE_THREAD, *options]
    copy = ["sh", "-c", 'cp -r "$1" "$2" && sync -f "$2"', "sh", str(source), str(out)]
    contenders = {
        f"cp and sync of {nbytes / 1e9:.1f} GB": [copy],
        "filter by 1 process": [ckptool],
        "filter by 2 processes": [[*ckptool, "--distributed"]] * 2,
        "filter by 1 process of 1 thread": [lean],
        "filter by 2 processes of 1 thread": [[*lean, "--distributed"]] * 2,
    }
    best: dict[str, Cost] = {}
    os.sync()
    for _ in range(3):
        for name, commands in contenders.items():
            took = cost(*commands)
            best[name] = min(best.get(name, took), took)
            clear(folder)
    for name, took in best.items():
        print(f"{name}: {took}", flush=True)
    whole, resumed = [], []
    shards = len(list(source.glob("*.safetensors")))
    for _ in range(3):
        whole.append(cost([*ckptool, "--resume"]))
        clear(folder)
        process = subprocess.Popen([*ckptool, "--resume"], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob(".out.*/done/*.safetensors.json"))) < 0.8 * shards:
            time.sleep(0.01)
        process.kill()
        process.wait()
        done = len(list(folder.glob(".out.*/done/*.safetensors.json")))
        resumed.append(cost([*ckptool, "--resume"]))
        clear(folder)
        print(f"killed at {done} of {shards} shards; whole: {whole[-1]}; resumed: {resumed[-1]}", flush=True)
    shares = [
        min(part) / min(all_of)
        for part, all_of in zip(zip(*resumed, strict=True), zip(*whole, strict=True), strict=True)
    ]
    print("a resume takes {:.0%} of the time, {:.0%} of the processor, {:.0%} of the bytes".format(*shares), flush=True)


def clear(folder: Path) -> None:
    """Remove an output and what says that it is complete."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    for path in folder.glob(".out.*.done"):
        path.unlink()


def plans(folder: Path) -> None:
    sparse_shards(folder / "huge", 200, 500_000, 10**12)
    for what in (["--keep", "model.*"], ["--dtype", "f32"]):
        wall, cpu, rss, _ = run("filter", str(folder / "huge"), *what, "-o", str(folder / "x"), "--dry-run")
        shown = " ".join(what)
        print(f"1 TB, 500,000 keys, filter {shown}: {wall:.1f} s, {cpu:.1f} s of processor, {rss >> 20} MB", flush=True)
    options = ["--part", "999/999", "--keep", "model.*", "-o", str(folder / "x")]
    wall, cpu, rss, _ = run("filter", str(folder / "huge"), *options)
    print(f"... a process that plans it and writes nothing: {wall:.1f} s, {cpu:.1f} s of processor, {rss >> 20} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--only", choices=["remote", "local", "plans"])
    chosen = parser.parse_args()
    with bench_folder() as place:
        for name, measured in (("remote", remote), ("plans", plans)):
            if chosen.only in (None, name):
                measured(place)
        if chosen.only in (None, "local"):
            local(place, chosen.gigabytes)
