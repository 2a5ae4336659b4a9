"""The command ``neutroflag``: stdout is data, stderr is progress; exit codes are those of the contract.

Heavy imports stay inside the commands: ``neutroflag version`` must not load a web server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["main"]

OK, FAILURE, USAGE, NOT_READY, SET_ASIDE = 0, 1, 2, 3, 4

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Clozapine ANC watch."
)
rules_app = typer.Typer(no_args_is_help=True, help="The monitoring protocols, as data.")
patients_app = typer.Typer(no_args_is_help=True, help="The register of patients.")
alerts_app = typer.Typer(no_args_is_help=True, help="What prescribers are asked, and what became of it.")
messages_app = typer.Typer(no_args_is_help=True, help="What arrived.")
dead_app = typer.Typer(no_args_is_help=True, help="Notifications that no destination took.")
db_app = typer.Typer(no_args_is_help=True, help="The database.")
config_app = typer.Typer(no_args_is_help=True, help="The settings.")
site_app = typer.Typer(no_args_is_help=True, help="The profiles of senders.")
users_app = typer.Typer(no_args_is_help=True, help="Who may log in to the console.")
audit_app = typer.Typer(no_args_is_help=True, help="Who did what.")
for name, group in {
    "rules": rules_app,
    "patients": patients_app,
    "alerts": alerts_app,
    "messages": messages_app,
    "dead-letters": dead_app,
    "db": db_app,
    "config": config_app,
    "site": site_app,
    "users": users_app,
    "audit": audit_app,
}.items():
    app.add_typer(group, name=name)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="NEUTROFLAG_CONFIG", help="Settings file (TOML).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this only say what would be done.")]


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("neutroflag"))


@app.command()
def demo(once: Annotated[bool, typer.Option("--once", help="Run to the end, print the summary.")] = False) -> None:
    """The main job, with a simulated laboratory and a simulated prescriber's system."""
    from engine.demo import run

    raise typer.Exit(run(once=once, stdout=sys.stdout))


@app.command()
def serve(config: Config = None) -> None:
    """Run the engine until told to stop."""
    from engine.heap import keep_all

    keep_all()
    from engine.serve import serve_command

    raise typer.Exit(serve_command(config, stderr=sys.stderr))


@app.command()
def read(
    files: Annotated[list[Path], typer.Argument(help="Files or folders.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 when some input was not understood.")] = False,
    site: Annotated[Path | None, typer.Option("--site", help="A sender's profile (TOML) to read with.")] = None,
) -> None:
    """What the engine understands of each message; no state."""
    from engine.cli_read import read_command

    raise typer.Exit(read_command(files, stdout=sys.stdout, stderr=sys.stderr, strict=strict, site=site))


@site_app.command("suggest")
def site_suggest(files: Annotated[list[Path], typer.Argument(help="Samples of one sender: files or folders.")]) -> None:
    """Draft a profile from samples; every guess is a comment for a person to confirm."""
    from engine.cli_read import suggest_command

    raise typer.Exit(suggest_command(files, sys.stdout, sys.stderr))


@app.command()
def assess(cases: Annotated[Path, typer.Argument(help="A JSON array of cases.")]) -> None:
    """What the rules say of each case; no state."""
    from engine.cli_rules import assess_command

    raise typer.Exit(assess_command(cases, stdout=sys.stdout, stderr=sys.stderr))


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="Files to send.")],
    to: Annotated[str, typer.Option("--to", help="mllp://HOST:PORT or http(s)://...")],
) -> None:
    """Send each message of each file, print each answer."""
    from engine.sending import send_command

    raise typer.Exit(send_command(files, to, stdout=sys.stdout, stderr=sys.stderr))


@app.command()
def simulate(
    to: Annotated[str, typer.Option("--to", help="mllp://HOST:PORT")],
    rate: Annotated[int, typer.Option("--rate", help="Messages a second; 0: as fast as answered.")] = 0,
    connections: Annotated[int, typer.Option("--connections")] = 4,
    count: Annotated[int, typer.Option("--count")] = 1000,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Not only loopback.")] = False,
    region: Annotated[int, typer.Option("--region", help="A week of so many laboratories, 99 of 100 irrelevant.")] = 0,
    seed: Annotated[
        int, typer.Option("--seed", help="With --region: the same seed gives the same messages a day.")
    ] = 1,
    against: Annotated[str, typer.Option("--against", help="With --region: http://HOST:PORT of the engine.")] = "",
    register: Annotated[
        Path | None, typer.Option("--register", help="With --region: write its patients as CSV, send nothing.")
    ] = None,
) -> None:
    """Play laboratories: send blood counts, print rate and time to the answer. --region: what a regional group sees."""
    from engine.simulate import simulate_command

    if region:
        from engine.cli_region import region_command

        code = region_command(
            to, rate=rate, connections=connections, count=count, laboratories=region, seed=seed, against=against,
            register=register, allow_remote=allow_remote, stdout=sys.stdout, stderr=sys.stderr,
        )  # fmt: skip
        raise typer.Exit(code)

    raise typer.Exit(
        simulate_command(
            to,
            rate=rate,
            connections=connections,
            count=count,
            allow_remote=allow_remote,
            stdout=sys.stdout,
            stderr=sys.stderr,
        )
    )


@app.command()
def health(config: Config = None) -> None:
    """Ask the running engine whether it accepts and judges; exit 3 when not."""
    from engine.cli_state import health_command

    raise typer.Exit(health_command(config, stdout=sys.stdout, stderr=sys.stderr))


@rules_app.command("list")
def rules_list(json: Json = False) -> None:
    """The packaged protocols."""
    from engine import cli_rules

    raise typer.Exit(cli_rules.rules_list(stdout=sys.stdout, stderr=sys.stderr, json=json))


@rules_app.command("show")
def rules_show(
    protocol: str,
    json: Json = False,
    language: Annotated[str, typer.Option("--language", help="fr or en.")] = "en",
) -> None:
    """One protocol as a clinician would read it."""
    from engine import cli_rules

    raise typer.Exit(cli_rules.rules_show(protocol, stdout=sys.stdout, stderr=sys.stderr, json=json, language=language))


@rules_app.command("check")
def rules_check(json: Json = False) -> None:
    """Load every protocol as the engine would; say what is wrong and where."""
    from engine import cli_rules

    raise typer.Exit(cli_rules.rules_check(stdout=sys.stdout, stderr=sys.stderr, json=json))


@rules_app.command("prove")
def rules_prove(
    files: Annotated[list[Path] | None, typer.Argument(help="Protocol files beside the packaged ones.")] = None,
    json: Json = False,
) -> None:
    """Prove of every protocol what its file declares, for every count and state (extra [proof])."""
    from engine import cli_rules

    raise typer.Exit(cli_rules.rules_prove(stdout=sys.stdout, stderr=sys.stderr, paths=tuple(files or ()), json=json))


@rules_app.command("shadow")
def rules_shadow(
    old: Annotated[str, typer.Argument(help="A protocol's name, or a file.")],
    new: Annotated[str, typer.Argument(help="A protocol's name, or a file.")],
    config: Config = None,
    json: Json = False,
    intervals: Annotated[bool, typer.Option("--intervals", help="Also patients with other intervals only.")] = False,
) -> None:
    """Replay stored history under another protocol: who would have been treated differently, and when."""
    from engine.cli_shadow import rules_shadow as command

    raise typer.Exit(command(config, old, new, stdout=sys.stdout, stderr=sys.stderr, json=json, all_=intervals))


@rules_app.command("replay")
def rules_replay(config: Config = None, json: Json = False) -> None:
    """Make every stored verdict again from what was known then; exit 1 when one comes out otherwise."""
    from engine.cli_shadow import rules_replay as command

    raise typer.Exit(command(config, stdout=sys.stdout, stderr=sys.stderr, json=json))


@patients_app.command("import")
def patients_import(
    file: Path,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, write nothing.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="A new CSV file for each refusal and note, by line and column.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who answers for this import.")] = "",
) -> None:
    """Put the patients of a CSV file on the register: all of them, or none."""
    from engine.cli_state import patients_import_command

    who = by or os.environ.get("USER", "") or "command line"
    raise typer.Exit(patients_import_command(config, file, who, dry_run, report, stdout=sys.stdout, stderr=sys.stderr))


@patients_app.command("show")
def patients_show(key: str, config: Config = None, json: Json = False) -> None:
    """One patient: course, present verdict, open alerts. KEY: identifier, authority|identifier or register id."""
    from engine.cli_state import patients_show_command

    raise typer.Exit(patients_show_command(config, key, json, stdout=sys.stdout, stderr=sys.stderr))


@patients_app.command("timeline")
def patients_timeline(key: str, config: Config = None, json: Json = False) -> None:
    """Everything known of one patient, by time."""
    from engine.cli_state import patients_timeline_command

    raise typer.Exit(patients_timeline_command(config, key, json, stdout=sys.stdout, stderr=sys.stderr))


@patients_app.command("export")
def patients_export(
    key: str,
    config: Config = None,
    to: Annotated[Path | None, typer.Option("--to", help="A new file for it (mode 0600); else stdout.")] = None,
    by: Annotated[str, typer.Option(help="Who does it, for the audit; else this account.")] = "",
) -> None:
    """Everything held about one person, as one JSON document with a FHIR Bundle in it. KEY: as for show."""
    from engine.cli_person import patients_export_command

    raise typer.Exit(patients_export_command(config, key, to, by, stdout=sys.stdout, stderr=sys.stderr))


@patients_app.command("erase")
def patients_erase(
    key: str,
    config: Config = None,
    by: Annotated[str, typer.Option("--by", help="Who erases; stays in the audit.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, without naming the patient; stays in the audit.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Although an alert is open or treatment runs.")] = False,
    yes: Yes = False,
) -> None:
    """Remove everything held about one person; says what stays, here and elsewhere. KEY: as for show."""
    from engine.cli_person import patients_erase_command

    raise typer.Exit(patients_erase_command(config, key, by, reason, force, yes, stdout=sys.stdout, stderr=sys.stderr))


@patients_app.command("unmerge")
def patients_unmerge(
    key: str,
    config: Config = None,
    by: Annotated[str, typer.Option("--by", help="Who takes the merge back.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; stays in the audit.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Take the last merge (ADT^A40) of a patient back. KEY: as for show."""
    from engine.cli_merge import patients_unmerge_command

    raise typer.Exit(patients_unmerge_command(config, key, by, yes, reason, stdout=sys.stdout, stderr=sys.stderr))


@alerts_app.command("list")
def alerts_list(
    config: Config = None,
    json: Json = False,
    state: Annotated[str, typer.Option(help="open, answered or withdrawn.")] = "",
    level: Annotated[str, typer.Option(help="critical, red, amber or info.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0: all.")] = 0,
) -> None:
    """Alerts, oldest first: who is asked, how often it passed on, by when an answer is awaited."""
    from engine.cli_alerts import alerts_list_command

    raise typer.Exit(alerts_list_command(config, json, state, level, limit, stdout=sys.stdout, stderr=sys.stderr))


@alerts_app.command("show")
def alerts_show(alert_id: str, config: Config = None, json: Json = False) -> None:
    """One alert and every step of its way: made, sent, stored, seen, answered, escalated, closed."""
    from engine.cli_alerts import alerts_show_command

    raise typer.Exit(alerts_show_command(config, alert_id, json, stdout=sys.stdout, stderr=sys.stderr))


@messages_app.command("list")
def messages_list(
    config: Config = None,
    json: Json = False,
    disposition: Annotated[str, typer.Option(help="Only these; or pending.")] = "",
    sender: Annotated[str, typer.Option(help="MSH-3|MSH-4.")] = "",
    control_id: Annotated[str, typer.Option(help="MSH-10.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0: all.")] = 0,
) -> None:
    """Messages, oldest first."""
    from engine.cli_state import messages_list_command

    raise typer.Exit(
        messages_list_command(
            config, json, disposition, sender, control_id, limit, stdout=sys.stdout, stderr=sys.stderr
        )
    )


@messages_app.command("show")
def messages_show(number: int, config: Config = None, json: Json = False) -> None:
    """One message: as received, what was understood, the verdicts."""
    from engine.cli_state import messages_show_command

    raise typer.Exit(messages_show_command(config, number, json, stdout=sys.stdout, stderr=sys.stderr))


@messages_app.command("groups")
def messages_groups(config: Config = None, json: Json = False) -> None:
    """What could not be read or judged, by kind: reason, sender and type, under one fingerprint."""
    from engine.cli_again import messages_groups_command

    raise typer.Exit(messages_groups_command(config, json, stdout=sys.stdout, stderr=sys.stderr))


@messages_app.command("replay")
def messages_replay(
    numbers: Annotated[list[int] | None, typer.Argument(help="Messages; or a kind of them:")] = None,
    kind: Annotated[str, typer.Option(help="A fingerprint of `messages groups`.")] = "",
    reason: Annotated[str, typer.Option(help="What the reason begins with.")] = "",
    sender: Annotated[str, typer.Option(help="MSH-3|MSH-4.")] = "",
    edited: Annotated[
        Path | None, typer.Option(help="Judge these bytes in place of the one message; both are kept.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who does it, for the audit; else this account.")] = "",
    config: Config = None,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Judge stored messages again, as new ones linked to the old. Without --yes: what would change."""
    from engine.cli_again import messages_replay_command

    raise typer.Exit(
        messages_replay_command(
            config, numbers or [], kind, reason, sender, edited, by, json, yes, stdout=sys.stdout, stderr=sys.stderr
        )
    )


@dead_app.command("list")
def dead_list(config: Config = None, json: Json = False) -> None:
    """Notifications that were refused or given up, with the destination's words."""
    from engine.cli_state import dead_list_command

    raise typer.Exit(dead_list_command(config, json, stdout=sys.stdout, stderr=sys.stderr))


@dead_app.command("groups")
def dead_groups(config: Config = None, json: Json = False) -> None:
    """The same by destination and reason."""
    from engine.cli_again import dead_groups_command

    raise typer.Exit(dead_groups_command(config, json, stdout=sys.stdout, stderr=sys.stderr))


By = Annotated[str, typer.Option(help="Who does it, for the audit; else this account.")]


@dead_app.command("replay")
def dead_replay(
    numbers: Annotated[list[int] | None, typer.Argument(help="Dead letters; or all of a destination:")] = None,
    destination: Annotated[str, typer.Option(help="All that this one did not take.")] = "",
    code: Annotated[str, typer.Option(help="Of these only the ones with this code.")] = "",
    by: By = "",
    config: Config = None,
    yes: Yes = False,
) -> None:
    """Send again, under the same ids. Without --yes: what would wait again."""
    from engine.cli_again import dead_replay_command

    raise typer.Exit(
        dead_replay_command(config, numbers or [], destination, code, by, yes, stdout=sys.stdout, stderr=sys.stderr)
    )


@dead_app.command("drop")
def dead_drop(numbers: list[int], by: By = "", config: Config = None, yes: Yes = False) -> None:
    """Give up for good; the alert itself stays open."""
    from engine.cli_again import dead_drop_command

    raise typer.Exit(dead_drop_command(config, numbers, by, yes, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("upgrade")
def db_upgrade(config: Config = None) -> None:
    """Bring the schema to what this program needs."""
    from engine.cli_state import db_upgrade_command

    raise typer.Exit(db_upgrade_command(config, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("backup")
def db_backup(file: Path, config: Config = None) -> None:
    """Copy the database while the engine runs; the copy is verified."""
    from engine.cli_db import db_backup_command

    raise typer.Exit(db_backup_command(config, file, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("scrub")
def db_scrub(config: Config = None, yes: Yes = False) -> None:
    """Rewrite the database so that nothing removed is left in its files; nothing can be written meanwhile."""
    from engine.cli_person import db_scrub_command

    raise typer.Exit(db_scrub_command(config, yes, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("verify")
def db_verify(
    config: Config = None,
    audit_head: Annotated[str, typer.Option("--audit-head", help="A head noted earlier: entries:hash.")] = "",
) -> None:
    """Check the file, its references, that in = out, and the chain of the audit."""
    from engine.cli_db import db_verify_command

    raise typer.Exit(db_verify_command(config, audit_head, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("move")
def db_move(target: str, yes: Yes = False, config: Config = None) -> None:
    """Copy everything of the SQLite file of the settings to an empty PostgreSQL database, and count it there."""
    from engine.cli_db import db_move_command

    raise typer.Exit(db_move_command(config, target, yes, stdout=sys.stdout, stderr=sys.stderr))


@db_app.command("rekey")
def db_rekey(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Bodies in one transaction.")] = 200,
    config: Config = None,
) -> None:
    """Seal every message body with the newest key, beside the running engine; say which keys are not needed any more."""
    from engine.body_keys import db_rekey_command

    raise typer.Exit(db_rekey_command(config, batch, stdout=sys.stdout, stderr=sys.stderr))


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """Read the settings as ``serve`` would; say what is wrong and where."""
    from engine.cli_state import config_check_command

    raise typer.Exit(config_check_command(config, stdout=sys.stdout, stderr=sys.stderr))


@config_app.command("show")
def config_show(
    config: Config = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    json: Json = False,
) -> None:
    """Every setting in force."""
    from engine.cli_state import config_show_command

    raise typer.Exit(config_show_command(config, origin, json, stdout=sys.stdout, stderr=sys.stderr))


@config_app.command("texts")
def config_texts(
    config: Config = None,
    language: Annotated[str, typer.Option("--language", help="fr or en; without it both.")] = "",
) -> None:
    """Every text that a prescriber may read, as the file by which a site replaces them (locale.texts)."""
    from engine.cli_state import config_texts_command

    raise typer.Exit(config_texts_command(config, language, stdout=sys.stdout, stderr=sys.stderr))


Since = Annotated[str, typer.Option("--since", help="From this day on (UTC), as 2026-11-22.")]


@audit_app.command("list")
def audit_list(
    config: Config = None,
    patient: Annotated[str, typer.Option("--patient", help="The register's number of a patient.")] = "",
    since: Since = "",
    limit: Annotated[int, typer.Option("--limit", min=1)] = 1000,
    json: Json = False,
) -> None:
    """The acts of persons and of the register, oldest first."""
    from engine.cli_audit import audit_list_command

    raise typer.Exit(audit_list_command(config, json, patient, since, limit, stdout=sys.stdout, stderr=sys.stderr))


@audit_app.command("export")
def audit_export(config: Config = None, since: Since = "") -> None:
    """FHIR AuditEvents (IHE BALP), one a line."""
    from engine.cli_audit import audit_export_command

    raise typer.Exit(audit_export_command(config, since, stdout=sys.stdout, stderr=sys.stderr))


PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="Its first line is the password; else it is asked for.")
]


def _operator() -> str:
    return os.environ.get("USER", "") or "command line"


@users_app.command("add")
def users_add(
    name: str,
    role: Annotated[str, typer.Option("--role", help="clinician, operator, auditor or admin.")],
    config: Config = None,
    password_file: PasswordFile = None,
) -> None:
    """A new account."""
    from engine.cli_users import users_add_command

    raise typer.Exit(
        users_add_command(config, name, role, password_file, _operator(), stdout=sys.stdout, stderr=sys.stderr)
    )


@users_app.command("list")
def users_list(config: Config = None, json: Json = False) -> None:
    """Every account, by name."""
    from engine.cli_users import users_list_command

    raise typer.Exit(users_list_command(config, json, stdout=sys.stdout, stderr=sys.stderr))


@users_app.command("role")
def users_role(name: str, role: str, config: Config = None) -> None:
    """Another role, from the account's next page on."""
    _change_user(config, "role", name, role=role)


@users_app.command("disable")
def users_disable(name: str, config: Config = None) -> None:
    """No more log-in; open sessions end."""
    _change_user(config, "disable", name)


@users_app.command("enable")
def users_enable(name: str, config: Config = None) -> None:
    """Log-in again, with the password it had."""
    _change_user(config, "enable", name)


@users_app.command("password")
def users_password(name: str, config: Config = None, password_file: PasswordFile = None) -> None:
    """A new password; open sessions end."""
    _change_user(config, "password", name, password_file=password_file)


def _change_user(
    config: Path | None, verb: str, name: str, *, role: str = "", password_file: Path | None = None
) -> None:
    from engine.cli_users import users_change_command

    raise typer.Exit(
        users_change_command(config, verb, name, role, password_file, _operator(), stdout=sys.stdout, stderr=sys.stderr)
    )


def main() -> None:
    try:
        app()
    except BrokenPipeError:
        # The reader of a listing left (``| head``): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)


if __name__ == "__main__":
    main()
