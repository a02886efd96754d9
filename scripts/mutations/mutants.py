"""`scripts/mutants`: plants every fault of a table in a copy of the tree, one by one, and says which test noticed.

Exit code 0 only if the tests pass in the clean copy and every fault is noticed. A fault that no test notices is a
hole between the tests. A text of the table that no longer stands in the tree exactly once is an error as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from scripts.harness.programs import ROOT
from scripts.mutations.mutation import Mutant, stale
from scripts.mutations.planted import MUTANTS
from scripts.mutations.tree import Tree
from scripts.mutations.trial import Fate, Verdict, run_tests, try_mutant


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The faults of these names, or of names that begin so; all if no name is given."""
    found = [each for each in MUTANTS if not names or any(each.name.startswith(name) for name in names)]
    if not found:
        raise click.UsageError(f"no fault is called {', '.join(names)}: see --list")
    return found


def try_all(mutants: Sequence[Mutant]) -> list[Verdict]:
    """Every fault in turn, told as it goes."""
    with Tree() as tree:
        tests = list(dict.fromkeys(test for each in mutants for test in each.tests))
        clean = run_tests(tree, tests)
        if not clean.passed:
            raise click.ClickException(f"without any fault: {clean.noticed_by or ''} {clean.trouble}")
        click.echo("| fault | fate | by |\n|---|---|---|")
        verdicts = []
        for each in mutants:
            verdicts.append(try_mutant(tree, each))
            click.echo(f"| {each.name} | {verdicts[-1].fate.value} | {verdicts[-1].by} |")
    return verdicts


@click.command()
@click.option("--only", "names", multiple=True, metavar="NAME", help="Only faults whose name begins so.")
@click.option("--list", "is_list", is_flag=True, help="Print the table of faults and plant nothing.")
def main(names: tuple[str, ...], is_list: bool) -> None:
    """Plant faults in a copy of the tree, one by one; exit code 1 where no test notices one."""
    mutants = chosen(names)
    if problems := stale(MUTANTS, ROOT):
        raise click.ClickException("the table is stale:\n" + "\n".join(problems))
    if is_list:
        for each in mutants:
            click.echo(f"{each.name:32} {each.rule}")
        return
    verdicts = try_all(mutants)
    left = [verdict for verdict in verdicts if verdict.fate is not Fate.KILLED]
    click.echo(f"\n{len(verdicts) - len(left)} of {len(verdicts)} faults were noticed")
    sys.exit(bool(left))


if __name__ == "__main__":
    main(prog_name="scripts/mutants")
