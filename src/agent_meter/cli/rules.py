"""`agent-meter rules`: is a rules file right, and what would it do?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .fence import Commands, Json, existing, print_json, say

if TYPE_CHECKING:
    from ..rules import Rule, RuleFile

app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Alert rules: check a file, try it out.", rich_markup_mode=None
)
File = Annotated[str, typer.Argument(metavar="FILE", help="A YAML file such as budget-alerts.yaml.")]


@app.command("check")
def check(file: File, json: Json = False) -> None:
    """Read a rules file and say what is in it; exit code 1 and the line, when it cannot work."""
    told = _load(file)
    if json:
        print_json([_document(rule) for rule in told.rules])
        return
    for rule in told.rules:
        whose = {"meter": "everything", "agent": "each agent", "task": "each task of each agent"}[rule.subject]
        say(f"{rule.name}: {rule.severity}, {', '.join(action.name for action in rule.actions)}, for {whose}")
        missing = [name for name in rule.limits if name not in told.limits]
        if missing:
            say(f"  needs a budget or a limit: {', '.join(missing)}")
    say(f"{file}: {len(told.rules)} rule{'s' if len(told.rules) != 1 else ''}, all of them right")


@app.command("test")
def try_out(
    file: File,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="A variable: daily_tokens=1200000. Repeatable."),
    ] = None,
    agent: Annotated[str, typer.Option(metavar="NAME", help="The agent that the rules are about.")] = "researcher",
    task: Annotated[str, typer.Option(metavar="NAME", help="The task that the rules are about.")] = "task-1",
    store: Annotated[
        str, typer.Option("--store", metavar="STORE", help="The numbers and budgets of a store, as they are now.")
    ] = "",
    json: Json = False,
) -> None:
    """Which rules fire with these numbers, and with which messages. Variables that are not set are 0.

    With --store: which would fire now, for whom. Exit code 0 when none fires, 1 when one does.
    """
    if bool(set) == bool(store):
        raise typer.BadParameter("give the numbers with --set, or a --store that has them", param_hint="'--set'")
    told = _load(file)
    fired = _fired_now(told, store) if store else _fired_with(told, set or [], agent, task)
    if json:
        print_json([{**_document(one.rule), **one.document()} for one in fired])
    for one in () if json else fired:
        say(f"[{one.rule.severity}] {one.rule.name}: {one.message}")
        say(f"  does: {', '.join(action.name for action in one.rule.actions)}")
        if one.since:
            say(f"  has fired already, {one.since}")
    if not fired and not json:
        say("No rule fires.")
    raise typer.Exit(1 if fired else 0)


class _Fired(NamedTuple):
    rule: Rule
    message: str
    agent: str = ""
    task: str = ""
    since: str = ""  # in the store: since when this is known

    def document(self) -> dict[str, Any]:
        return {"message": self.message, "agent": self.agent, "task": self.task, "fired_since": self.since or None}


def _fired_with(told: RuleFile, set: list[str], agent: str, task: str) -> list[_Fired]:
    from ..rules.messages import fill

    values: dict[str, float] = {**told.limits, **dict(_assignment(text) for text in set)}
    fired = []
    for rule in told.rules:
        missing = [name for name in rule.limits if name not in values]
        if missing:
            raise typer.BadParameter(f"rule {rule.name} needs {missing[0]}: --set {missing[0]}=…", param_hint="'--set'")
        if rule.condition.holds({name: values.get(name, 0.0) for name in rule.names}):
            of_agent = agent if rule.subject != "meter" else ""
            of_task = task if rule.subject == "task" else ""
            message = fill(rule, of_agent, of_task, lambda name: values.get(name, 0.0))[3]
            fired.append(_Fired(rule, message, of_agent, of_task))
    return fired


def _fired_now(told: RuleFile, store: str) -> list[_Fired]:
    """By the numbers of a store, and the budgets that are kept there."""
    from ..rules import Rules
    from ..shelf import shelf_of
    from .budget import budgets
    from .ledger import ledger

    rules = Rules.of(told, interval=None)
    with ledger(store) as opened, budgets(store) as kept:
        found = rules.preview(opened, kept)
        shelf = shelf_of(opened)
        states = shelf.read().get("rules", {})
        if callable(close := getattr(shelf, "close", None)):
            close()
    fired = []
    for rule, (agent, task), message in found:
        state = states.get(rule.name, {}).get(f"{agent}\x1f{task}", {})
        fired.append(_Fired(rule, message, agent, task, state["since"] if state.get("fired") else ""))
    return fired


@app.command("variables")
def variables() -> None:
    """Every name that a condition may use, and what it says."""
    from ..rules import VARIABLES
    from ..views.terminal import console, table, write

    shown = table("variable", "about", "what it says")
    for variable in VARIABLES.values():
        shown.add_row(variable.name, variable.subject, variable.meaning)
    write([shown], console())


def _load(file: str) -> RuleFile:
    from ..rules import load
    from ..rules.actions import ACTIONS
    from ..rules.actions import check as check_actions

    told = load(existing(file, "FILE"))
    for rule in told.rules:
        check_actions(rule, ACTIONS)
    return told


def _document(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "condition": rule.condition.text,
        "severity": rule.severity,
        "subject": rule.subject,
        "actions": [action.name for action in rule.actions],
        "for": rule.hold,
        "until": None if rule.until is None else rule.until.text,
        "limits": list(rule.limits),
        "where": rule.where,
    }


def _assignment(text: str) -> tuple[str, float]:
    from ..rules import VARIABLES

    name, _, number = text.partition("=")
    name = name.strip()
    if name not in VARIABLES:
        from difflib import get_close_matches

        near = get_close_matches(name, list(VARIABLES), 1, 0.5)
        raise typer.BadParameter(
            f"there is no variable {name!r}{f'; did you mean {near[0]}?' if near else ''}", param_hint="'--set'"
        )
    try:
        return name, float(number.replace(",", "").replace("_", ""))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write {name}=1200000", param_hint="'--set'") from None
