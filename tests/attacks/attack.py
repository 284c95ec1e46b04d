"""One attack: what is chosen from its seed, and what is done."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from blocks.catalog import PROVIDERS
from blocks.emulator import EmulatorOptions, running_emulator
from tests.attacks.books import BEGIN, END, Books
from tests.attacks.habits import HABITS, ONE_OF, Switches
from tests.flows.undecorated import write_job, write_texts
from tests.forking import Forked, ForkServer

MODELS = {
    "holysheep": "gpt-4.1",
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
    "mistral": "mistral-small-latest",
    "gemini": "gemini-2.5-flash",
}
SETTLE = {"settle": "0.8"}  # longer than a batch stays invisible here
OPTIONS: dict[str, list[dict[str, str]]] = {  # of the client, one of which is chosen
    "holysheep": [{"idempotency": "verified"}],
    "openai": [SETTLE, SETTLE | {"endpoint": "/v1/responses"}, SETTLE | {"structured": "json_object"}],
    "anthropic": [SETTLE, SETTLE | {"auth": "bearer"}],
    "mistral": [SETTLE, SETTLE | {"inline": "never"}],
    "gemini": [SETTLE],
}
JOB = f"""\
name: attack
model: unknown
prompt: "Label {BEGIN}{{{{ text }}}}{END}"
output:
  code: {{type: integer, minimum: 0, maximum: 1000000000}}
  label: {{type: string}}
"""
LIMIT = "max_output_tokens: 400\n"
PLACES = {  # where a run may die, that has more than two batches, and how often it gets there at least
    "before": 7,
    "after": 7,
    "torn": 7,
    "create": 2,
    "upload": 1,
    "look": 2,
    "results": 1,
}
WITHOUT = {
    "holysheep": {"upload"},
    "anthropic": {"upload"},
    "mistral": {"upload"},
    "gemini": {"upload", "results"},
}  # calls that a dialect does not have
KILLED = -9
MOST_RUNS = 14  # after the last kill
RESUBMIT = "resubmit"  # the user's word for a batch of which nobody can tell whether it was accepted


@dataclass(frozen=True)
class Plan:
    """What an attack does."""

    lead: str
    seed: int
    dialect: str
    habits: tuple[str, ...]
    switches: Switches
    kills: tuple[str, ...]
    texts: list[str | None]
    batch_size: int
    options: dict[str, str]


def plan_of(lead: str, number: int, again: int = 0) -> Plan:
    """The attack with this number of those that a habit leads; `again`: how often its habit did not happen so far."""
    dice = Random(f"{lead}/{number}" + f"/{again}" * (again > 0))  # noqa: S311  # chooses attacks, keeps no secret
    dialects = HABITS[lead].dialects
    dialect = dialects[number % len(dialects)]
    habits = [lead]
    others = [name for name, habit in HABITS.items() if dialect in habit.dialects]
    for name in dice.sample(others, dice.randint(0, 2)):
        if name != lead and not any(name in group and group.intersection(habits) for group in ONE_OF):
            habits.insert(0, name)
    switches: Switches = {}
    for name in habits:
        switches |= HABITS[name].choose(dice)
    rows = dice.randint(20, 60)
    texts: list[str | None] = [f"{lead} {number}, row {i}: {dice.random()}" for i in range(rows)]
    texts += dice.sample(texts, dice.randint(0, 3))
    kinds = [kind for kind in PLACES if kind not in WITHOUT.get(dialect, ())]
    chosen = [dice.choice(kinds) for _ in range(dice.randint(0, 3))]
    kills = tuple(f"{kind}:{dice.randint(1, PLACES[kind])}" for kind in chosen)
    size = dice.randint(5, max(5, len(texts) // 3))
    return Plan(
        lead, dice.randrange(10**6), dialect, tuple(habits), switches, kills, texts, size, dice.choice(OPTIONS[dialect])
    )


@dataclass
class Done:
    """What came of an attack."""

    plan: Plan
    books: Books
    output: Path
    last: dict[str, Any]
    word: str = ""  # of the user, that runs could not go on without: what `--on-unknown` was set to
    reached: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # sentences that runs ended with before the last one


def communicate(process: Forked) -> tuple[str, str]:
    """What it said. A run that does not end fails the attack, with its last words."""
    try:
        return process.communicate(60)
    except subprocess.TimeoutExpired:
        assert process.stderr is not None
        pytest.fail(f"it does not end: {process.stderr.read().decode()[-2000:]}")


def carry_out(plan: Plan, folder: Path, runs: ForkServer) -> Done:
    """Start the command, killed as planned, then again until it has nothing left to do."""
    key = "a-key-for-attacks"
    options = EmulatorOptions(
        **{"latency": 0.0, **plan.switches},
        dialect=plan.dialect,
        key=key,
        seed=plan.seed,
        state=folder / "provider.sqlite",
    )
    needs_limit = "length_rate" in plan.switches and plan.dialect != "holysheep"
    parameters: dict[str, Any] = {
        "input": str(write_texts(folder, plan.texts)),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder, JOB + LIMIT * needs_limit)),
        "provider": plan.dialect,
        "model": MODELS[plan.dialect],
        "batch_size": plan.batch_size,
        "poll_interval": 0.05,
        "options": plan.options,
    }
    for name in plan.habits:
        parameters |= HABITS[name].parameters
    env = {PROVIDERS[plan.dialect].key_variable: key}
    done = Done(plan, Books(folder / "provider.sqlite", options), folder / "out.parquet", {})
    with running_emulator(options) as emulator:
        parameters["base_url"] = emulator.base_url
        for place in (*plan.kills, *[""] * MOST_RUNS):
            call = orjson.dumps(parameters).decode()
            process = runs.fork("tests.attacks.attacked:main", place, call, capture=True, env=env)
            out, err = communicate(process)
            assert "Traceback" not in err, err
            if process.returncode == KILLED:
                done.reached.append(place)
            elif process.returncode == 0:
                done.last = orjson.loads(out)
                if not place and done.last["exit"] in (0, 3):
                    return done
                done.said.append(done.last["message"])
                if not place and f"--on-unknown {RESUBMIT}" in done.last["message"]:
                    done.word = parameters["on_unknown"] = RESUBMIT
            else:
                done.said.append(err)
    pytest.fail(f"it does not end: {done.said}")
