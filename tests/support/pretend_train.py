"""`python pretend_train.py FOLDER train-arguments…`: behaves like `mtvision train`, from records made before.

`FOLDER/<run>.json` becomes the run's record, `FOLDER/<run>.py` its config. What the first attempt of a run
does besides is in `FOLDER/<run>.txt`: `fail` exits with 3, `wait` waits for SIGINT and leaves a checkpoint,
`die` is killed after its checkpoint. Every call that ends well adds a line to `FOLDER/calls.jsonl`.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

folder, config, *rest = sys.argv[1:]
folder, work = Path(folder), Path(rest[rest.index("--work-dir") + 1])
first = not (work / "attempted").exists()
work.mkdir(parents=True, exist_ok=True)
(work / "attempted").touch()
call = {
    "run": work.name, "arguments": rest, "threads": os.environ.get("OMP_NUM_THREADS"), "start": time.time(),
    "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
}  # fmt: skip
plan = folder / f"{work.name}.txt"
todo = plan.read_text().strip() if plan.is_file() and first else ""
print(f"training {work.name}", flush=True)
shutil.copy(folder / f"{work.name}.py", work / "config.py")
if todo == "fail":
    print("mtvision train: the loss is not finite")
    print("(MTVISION_TRACEBACK=1 shows where.)")
    sys.exit(3)
if todo in ("wait", "die"):
    (work / "losses.jsonl").write_text('{"iter": 5, "total": 1.0}\n')
    (work / "iter_5.pth").touch()
    if todo == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    (folder / "waiting").touch()
    time.sleep(60)
if todo == "slow":
    time.sleep(0.5)
shutil.copy(folder / f"{work.name}.json", work / "record.json")
call["end"] = time.time()
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\n")
