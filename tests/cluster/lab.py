"""A real SLURM of several nodes on this machine, thrown away afterwards: no systemd, no cgroup, nothing outside of DIR.

`python lab.py DIR NODES` runs munged, slurmctld and a slurmd a node in the foreground until there is a file DIR/stop.
Node i is called 127.0.0.<i+1>, its own address, so that the address of rank 0 needs no name service. For root and for
an ordinary user; written for SLURM 22.05 and later.
"""

import contextlib
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "setpriv")
# Root: a process namespace of its own, so that even a killed test run leaves nothing behind; bash reaps its orphans.
NAMESPACE = ("unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "bash", "-c", '"$@" & wait $!', "bash")

# cred_expire is also how long a requeued job waits (5 s is the least, 120 s the default); MinJobAge keeps what has
# ended in sight; FirstJobId tells the ports of Lightning's rendezvous from those of another such cluster.
CONF = """\
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
FirstJobId={first_job}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=0
SlurmdTimeout=60
KillWait=5
OverTimeLimit=0
MinJobAge=86400
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{preempt_signal}
{nodes}
PartitionName=main Nodes={names} Default=YES DefaultTime=10 MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes={names} MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """The programs that a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


def command(folder: Path, nodes: int) -> list[str]:
    """How to run a cluster that ends with the process that starts it."""
    apart, number = (NAMESPACE, "KILL") if os.geteuid() == 0 else ((), "TERM")
    return ["setpriv", "--pdeathsig", number, *apart, sys.executable, __file__, str(folder), str(nodes)]


def serve(folder: Path, nodes: int) -> None:
    """Run the cluster until there is a file `stop`; `ready` stands beside it while all nodes are idle."""
    names = [f"127.0.0.{index + 1}" for index in range(nodes)]
    for part in ("munge", "state", "log", *(f"spool/{name}" for name in names)):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "munge").chmod(0o755)  # munged refuses folders that others can write to
    _write_conf(folder, names)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    with contextlib.ExitStack() as stack:
        munge = folder / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "log", "seed", "pid")]
        daemons = [
            stack.enter_context(_daemon(folder, "munged", "--foreground", f"--socket={munge / 'socket'}", *files))
        ]
        _wait((munge / "socket").exists, daemons, folder)
        daemons.append(stack.enter_context(_daemon(folder, "slurmctld", "-D", "-i")))
        daemons += [stack.enter_context(_daemon(folder, "slurmd", "-D", "-N", name)) for name in names]
        stack.callback(_end_jobs)  # a job's steps outlive a stopped slurmd
        _wait(lambda: _say("sinfo", "-h", "-N", "-o", "%T").split().count("idle") >= 2 * nodes, daemons, folder)
        (folder / "ready").touch()
        while not (folder / "stop").exists():
            time.sleep(0.1)


def _write_conf(folder: Path, names: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(len(names) + 1)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        port, *ports = (free.getsockname()[1] for free in sockets)
    lines = [
        f"NodeName={name} NodeHostname=localhost NodeAddr={name} Port={number} CPUs=4 RealMemory=4000"
        for name, number in zip(names, ports, strict=True)
    ]
    found = re.search(r"(\d+)\.(\d+)", _say("slurmctld", "-V"))
    assert found
    old = (int(found[1]), int(found[2])) < (23, 2)
    text = CONF.format(
        port=port,
        user=getpass.getuser(),
        folder=folder,
        first_job=10001 + 100 * random.randrange(99),
        nodes="\n".join(lines),
        names=",".join(names),
        preempt_signal="SlurmctldParameters=preempt_send_user_signal" if old else "PreemptParameters=send_user_signal",
    )
    (folder / "slurm.conf").write_text(text)


@contextlib.contextmanager
def _daemon(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environ |= {"SLURM_CONF": str(folder / "slurm.conf")}
    program = shutil.which(name, path=PATH)
    assert program
    with (folder / "log" / f"{name}.out").open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", program, *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], bool], daemons: list[subprocess.Popen[bytes]], folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        dead = [daemon.args for daemon in daemons if daemon.poll() is not None]
        if dead or time.monotonic() > end:
            raise RuntimeError(f"the cluster doesn't come up (dead: {dead}); see {folder}/log")
        time.sleep(0.05)


def _end_jobs() -> None:
    if jobs := _say("squeue", "-h", "-o", "%A").split():
        _say("scancel", "--signal=KILL", "--full", *jobs)
        _say("scancel", *jobs)
        end = time.monotonic() + 15
        while _say("squeue", "-h", "-o", "%A").split() and time.monotonic() < end:
            time.sleep(0.1)


def _say(*words: str) -> str:
    program = shutil.which(words[0], path=PATH) or words[0]
    return subprocess.run([program, *words[1:]], check=False, text=True, capture_output=True).stdout


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    os.environ["SLURM_CONF"] = str(place / "slurm.conf")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(place, int(sys.argv[2]))
