"""`leasehold exec` as a process: environment, exit codes, signals, the terminal, loss of the lease."""

import os
import signal
import subprocess
import sys
import threading

import grpc
import pytest

from leasehold.v1 import types_pb2 as types

READY = "import signal, sys, time\nprint('ready', flush=True)\n"


class Run:
    """One `leasehold exec` in a process of its own."""

    def __init__(self, target, token_file, code, *options, environ=None, **popen):
        """Start it."""
        command = [sys.executable, "-m", "leasehold.cli", "exec", "--sidecar", target, "--token-file", str(token_file)]
        command += ["--provider", "anthropic", "--budget", "2.50", *options, "--", *code]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            text=True,
            **popen,
        )

    def ready(self):
        """Wait for the child's first line."""
        assert self.process.stdout.readline() == "ready\n"
        return self

    def end(self):
        """Exit code, the rest of standard output, standard error."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode, out, err


@pytest.fixture
def run(running, token_file):
    """Start one; none is left behind."""
    started = []

    def start(*code, options=(), **more):
        started.append(Run(running.target, token_file, code, *options, **more))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.end()


def python(body):
    """A child that says when it is ready."""
    return sys.executable, "-c", READY + body


def test_the_child_gets_the_lease_and_the_bill_is_shown(run, leases):
    """The variables are set, real keys are gone, the lease is released, one line says what was spent."""
    started = run(
        *python("import os; print(os.environ['ANTHROPIC_API_KEY'], 'OPENAI_API_KEY' in os.environ); sys.stdin.read()"),
        options=("--requests", "9"),
        environ={"ANTHROPIC_API_KEY": "sk-ant-real", "OPENAI_API_KEY": "sk-real"},
        stdin=subprocess.PIPE,
    ).ready()
    leases.charge("leases/1", 12_345)
    code, out, err = started.end()

    assert (code, out) == (0, "lhs_secret-1 False\n")
    assert err == (
        "leasehold: removed from the command's environment: ANTHROPIC_API_KEY, OPENAI_API_KEY\n"
        "leasehold: spent 0.012345 of 2.50 USD in 1 call (anthropic), lease leases/1 released\n"
    )
    assert leases.leases["leases/1"].lease.state == types.LEASE_STATE_RELEASED


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, ("true",)),
        (7, ("sh", "-c", "exit 7")),
        (128 + 9, ("sh", "-c", "kill -KILL $$")),
        (127, ("no-such-program-here",)),
        (126, ("/etc/hostname",)),
    ],
)
def test_the_exit_code_is_the_childs(run, leases, code, command):
    """The child's exit code, 128 + signal, or the shell's codes for what cannot be run; the lease is released."""
    ended, _, err = run(*command).end()

    assert code == ended, err
    assert len(leases.requests("ReleaseLease")) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_passed_on_once(run, leases, name):
    """The child gets each signal that is sent to us, once, and its own exit code comes back."""
    body = f"""
seen = []
signal.signal(signal.{name}, lambda *_: seen.append(1))
signal.signal(signal.SIGALRM, lambda *_: sys.exit(40 + len(seen)))
print('armed', flush=True)
while not seen:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    signal.pause()
"""
    started = run(*python(body)).ready()
    assert started.process.stdout.readline() == "armed\n"
    started.process.send_signal(getattr(signal, name))
    code, _, err = started.end()

    assert code == 41, err
    assert len(leases.requests("ReleaseLease")) == 1


def test_a_child_that_is_ended_by_a_signal_gives_128_and_its_number(run):
    """SIGTERM to us ends a child that does not catch it: 143."""
    started = run(*python("signal.pause()")).ready()
    started.process.send_signal(signal.SIGTERM)

    assert started.end()[0] == 128 + signal.SIGTERM


def test_the_child_has_its_usual_signals(run):
    """Nothing is held back or ignored in the child that would not be without us."""
    body = """
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('SigBlk', 'SigIgn'))][0])
"""
    _, out, _ = run(*python(body)).ready().end()

    assert out == "[]\n0000000000000000\n"


def test_at_a_terminal_ctrl_c_arrives_once(running, leases, token_file):
    """Ctrl-C at a terminal reaches the child from the terminal, and is not repeated by us."""
    body = (
        READY
        + """
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print('tty', sys.stdin.isatty(), flush=True)
while not seen:
    signal.pause()
time.sleep(0.2)
sys.exit(40 + len(seen))
"""
    )
    arguments = [sys.executable, "-m", "leasehold.cli", "exec", "--sidecar", running.target, "--token-file"]
    arguments += [str(token_file), "--provider", "anthropic", "--", sys.executable, "-c", body]
    runner = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    process = subprocess.Popen(
        [sys.executable, "-c", runner, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        seen = b""
        while b"tty True" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        process.stdin.write(b"\x03")
        process.stdin.flush()
        rest = process.stdout.read()
        process.stdin.close()

        assert process.wait(30) == 41, seen + rest
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()
    assert len(leases.requests("ReleaseLease")) == 1


def test_a_revoked_lease_is_told_and_the_child_goes_on(run, leases):
    """Revocation is said on standard error at once; the child is left to end by itself."""
    started = run(*python("sys.stdin.readline(); print('went on')"), stdin=subprocess.PIPE).ready()
    leases.wait_for("WatchLease", 1)
    leases.revoke("leases/1")
    told = started.process.stderr.readline()
    code, out, err = started.end()

    assert told.startswith("leasehold: leases/1 is lost: leases/1 is revoked. [LEASE_REVOKED]")
    assert (code, out) == (0, "went on\n")
    assert "lease leases/1 revoked" in err


def test_without_a_lease_the_child_does_not_run(run, leases):
    """A refusal ends with 125 and says why; nothing is started."""
    leases.fail_next("AcquireLease", grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED", "no grant covers this")
    code, out, err = run("echo", "ran").end()

    assert (code, out) == (125, "")
    assert "no grant covers this. [POLICY_DENIED] Next: do not retry" in err


def test_a_signal_before_the_child_runs_ends_it(run, leases):
    """Ctrl-C while the lease is being acquired starts nothing and leaves no lease."""
    arrived, gate, issue = threading.Event(), threading.Event(), leases._issue

    def issue_late(*arguments):
        arrived.set()
        gate.wait(60)
        return issue(*arguments)

    leases._issue = issue_late
    started = run("echo", "ran")
    assert arrived.wait(60)
    started.process.send_signal(signal.SIGINT)
    gate.set()
    code, out, err = started.end()

    assert (code, out) == (125, "")
    assert "stopped by signal 2 before the command began" in err
    assert len(leases.requests("ReleaseLease")) == 1


def test_the_lease_is_renewed_while_the_child_lives(run, leases):
    """A child may outlive the lease's first length."""
    leases.renew_share = 0.002
    started = run(*python("sys.stdin.readline()"), options=("--ttl", "60s"), stdin=subprocess.PIPE).ready()
    leases.wait_for("RenewLease", 3)

    assert started.end()[0] == 0
    assert leases.leases["leases/1"].lease.state != "active"


def test_options_of_the_child_are_its_own(run):
    """What comes after the command's name is not read by us."""
    code, out, _ = run("echo", "--budget", "-h").end()

    assert (code, out) == (0, "--budget -h\n")


def test_the_token_is_not_on_any_command_line_or_in_the_output(run):
    """The lease token is in the child's environment, and nowhere that others can read."""
    body = "print(open('/proc/self/cmdline').read()); sys.stdin.read()"
    _, out, err = run(*python(body), stdin=subprocess.PIPE).ready().end()

    assert "lhs_secret" not in out + err
