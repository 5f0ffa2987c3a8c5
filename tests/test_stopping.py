"""Signals end a process at once or between two steps; what one process knows, all know one step later."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from modeling_esi.training.stopping import Agreement, StopSignals, exit_code, follow_launcher

ROOT = Path(__file__).resolve().parents[1]
FINE, BROKEN = torch.tensor(False), torch.tensor(True)


# ----- signals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


def test_exit_codes_are_those_of_shells():
    assert (exit_code(signal.SIGTERM), exit_code(signal.SIGINT)) == (143, 130)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_is_to_save_a_signal_ends_at_once(alone, number):
    with pytest.raises(SystemExit) as end, StopSignals():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert end.value.code == 128 + number


def test_a_held_signal_is_kept_and_ends_the_process_on_release(alone):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signals.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # again: no more than before
        with pytest.raises(SystemExit) as end:
            signals.release()
    assert end.value.code == 143 and signal.getsignal(signal.SIGINT) is before


def test_release_without_a_signal_goes_on(alone):
    with StopSignals() as signals:
        signals.hold()
        signals.release()
        assert signals.received == 0


def processes(script, **environment):
    code = textwrap.dedent(script)
    clean = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env=clean | environment)  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


HOLDS = """
    import sys, time
    from modeling_esi.training.stopping import StopSignals
    with StopSignals() as signals:
        signals.hold()
        print("ready", flush=True)
        while not signals.received:
            time.sleep(0.01)
        print("received", flush=True)
        time.sleep(30)
"""


def test_a_second_ctrl_c_ends_at_once():
    process = processes(HOLDS)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "received\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT


def test_under_torchrun_the_same_ctrl_c_twice_is_one():
    """The terminal sends it to all, and the launcher once more."""
    process = processes(HOLDS, TORCHELASTIC_RUN_ID="1")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "received\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_process_follows_its_launcher_and_no_shell(tmp_path):
    """What accelerate launch starts ends with it, also where it is killed; what else starts a process, does not."""
    child = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from modeling_esi.training.stopping import StopSignals, follow_launcher
        with StopSignals() as signals:
            signals.hold()
            follows = follow_launcher()
            print(follows, flush=True)
            while follows and not signals.received:
                time.sleep(0.01)
            print("told", signals.received, flush=True)
    """)
    for name, follows in (("accelerate", True), ("somebody", False)):
        launcher = tmp_path / name
        launcher.write_text("import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]])\n")
        process = subprocess.Popen([sys.executable, str(launcher), child], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == f"{follows}\n"
        if follows:
            process.kill()
            assert process.stdout.readline() == f"told {int(signal.SIGTERM)}\n"
        process.wait(timeout=30)
        process.stdout.close()
    assert follow_launcher() is False  # pytest started this one


# ----- agreement -----------------------------------------------------------------------------------------------------


def test_what_is_told_is_read_one_step_later():
    agreement = Agreement()
    agreement.send(0, FINE, "step 1")
    assert agreement.verdict() is None
    agreement.send(signal.SIGTERM, FINE, "step 2")
    assert agreement.verdict() is None  # of step 1
    agreement.send(signal.SIGTERM, FINE, "step 3")
    verdict = agreement.verdict()
    assert (verdict.signal, verdict.broken) == (signal.SIGTERM, None)


def test_before_saving_the_last_step_counts_too():
    agreement = Agreement()
    agreement.send(0, BROKEN, "step 1")
    assert agreement.verdict(now=True).broken == "step 1"
    agreement.send(0, FINE, "step 2")
    assert agreement.verdict(now=True) is None


def test_who_stops_looks_whether_the_last_step_was_broken():
    agreement = Agreement()
    agreement.send(signal.SIGINT, FINE, "step 1")
    agreement.send(signal.SIGINT, BROKEN, "step 2")
    verdict = agreement.verdict()
    assert (verdict.signal, verdict.broken) == (signal.SIGINT, "step 2")


def test_two_processes_come_to_know_at_the_same_step(tmp_path):
    """One gets a signal at step 2, the other breaks at step 5; each writes down what it learns, and when."""
    script = tmp_path / "agree.py"
    script.write_text(
        textwrap.dedent("""
        import torch, torch.distributed as dist
        from modeling_esi.training.stopping import Agreement
        dist.init_process_group("gloo")
        rank, learnt = dist.get_rank(), []
        for received, broken in ((2, 0), (9, 5)):
            agreement = Agreement()
            for step in range(1, 9):
                signal_number = 15 if rank == 0 and step >= received else 0
                agreement.send(signal_number, torch.tensor(rank == 1 and step == broken), step)
                if verdict := agreement.verdict():
                    learnt.append((step, verdict.signal, verdict.broken))
                    break
        told = [None, None]
        dist.all_gather_object(told, learnt)
        if rank == 0:
            print(dist.get_world_size(), told[0] == told[1], told[0])
        dist.destroy_process_group()
    """)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "2 True [(3, 15, None), (6, 0, 5)]"
