"""The clinicians' pages: the day's lists, patients, one patient with the course and its changes, one alert and its answer.

Pages read in a thread and change nothing. Every form goes to ``console.actions`` and comes back either as a redirection or
as the same page with its values kept and the fault named beside its field.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from console import auth
from console.clinic_view import SPANS, changed, giga, name_of, patient_view, told, told_of
from console.course_forms import FORMS, NotTaken, by_of, field_of, read_change
from console.port import RIGHTS, Decision, RefusedInput, Right, Role, Visitor, decisions_for, needs_reason
from console.site import Site
from rules import ProtocolError, find_protocol
from rules.changes import ConfirmBen
from rules.explain import plain
from rules.model import AlertLevel, Assessment
from rules.protocol import Source
from store import StoreUnavailable, accounts, clinic

__all__ = ["routes"]

_SHOWN = 50
_LISTED = 30
"""Of each of the day's lists: it is made anew every two seconds for everybody who looks."""
_DUE_DAYS = 7

Seer = Annotated[Visitor, Depends(auth.requires(Right.PATIENTS))]
Doer = Annotated[Visitor, Depends(auth.requires(Right.ANSWER))]
Form = Annotated[FormData, Depends(auth.checked_form)]


def routes(site: Site) -> APIRouter:
    """To be included in the console's router."""
    router = APIRouter()
    pages = _Pages(site)

    @router.get("/today")
    def today(request: Request, who: Seer, level: str = "") -> Response:
        return site.page(request, who, "clinic/today.html", **pages.lists(request, level))

    @router.get("/today/lists")
    def lists(request: Request, who: Seer, level: str = "") -> Response:
        return site.fragment(request, who, "clinic/today_lists.html", **pages.lists(request, level))

    @router.get("/patients")
    def patients(request: Request, who: Seer, q: str = "", after: str = "") -> Response:
        found = site.read(clinic.search, q, after=after, limit=_SHOWN + 1)
        more = found[_SHOWN - 1].id if len(found) > _SHOWN else ""
        return site.page(
            request,
            who,
            "clinic/patients.html",
            q=q,
            after=after,
            found=found[:_SHOWN],
            more=more,
            **pages.common(request),
        )

    @router.get("/patients/{patient_id}")
    def patient(
        request: Request, who: Seer, patient_id: str, span: str = "", verdicts: str = "", done: str = ""
    ) -> Response:
        return pages.patient(request, who, patient_id, "clinic/patient.html", span=span, verdicts=verdicts, done=done)

    @router.get("/patients/{patient_id}/print")
    def paper(request: Request, who: Seer, patient_id: str, span: str = "") -> Response:
        return pages.patient(request, who, patient_id, "clinic/print.html", span=span, verdicts="", done="")

    @router.get("/patients/{patient_id}/change")
    def change_page(request: Request, who: Doer, patient_id: str, kind: str = "") -> Response:
        return pages.change(request, who, patient_id, kind)

    @router.get("/patients/{patient_id}/{kind}")
    def change_again(request: Request, who: Seer, patient_id: str, kind: str) -> Response:
        """The address of a refused form, asked for anew."""
        if kind not in FORMS:
            return site.problem(request, who, 404)
        return RedirectResponse(f"/console/patients/{patient_id}/change?kind={kind}", status_code=303)

    @router.get("/alerts/{alert_id}/answer")
    def answer_again(who: Seer, alert_id: str) -> Response:
        return RedirectResponse(f"/console/alerts/{alert_id}", status_code=303)

    @router.get("/alerts/{alert_id}")
    def alert(request: Request, who: Seer, alert_id: str, done: str = "") -> Response:
        return pages.alert(request, who, alert_id, done=done)

    @router.post("/alerts/{alert_id}/answer")
    async def answer(request: Request, who: Doer, form: Form, alert_id: str) -> Response:
        values = _values(form)

        async def act() -> Response:
            decision, by = _answer(values, who.name)
            found = await run_in_threadpool(site.read, clinic.alert_file, alert_id)
            if found is None:
                raise LookupError(alert_id)
            # Nobody answers a text that they have not seen: the form says which revision it stood beside.
            seen = values.get("revision", "")
            revision = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 10 else None
            reason = values.get("reason", "").strip()
            await site.console.actions.answer(alert_id, decision=decision, reason=reason, by=by, revision=revision)
            where = f"patients/{found.row.patient_id}" if found.row.patient_id else f"alerts/{alert_id}"
            return RedirectResponse(f"/console/{where}?done=answered", status_code=303)

        def again(errors: Mapping[str, str]) -> Response:
            return pages.alert(request, who, alert_id, values=values, errors=errors)

        return await _acted(site, request, who, act, again)

    @router.post("/patients/{patient_id}/{kind}")
    async def change(request: Request, who: Doer, form: Form, patient_id: str, kind: str) -> Response:
        if kind not in FORMS:
            return site.problem(request, who, 404)
        values = _values(form)

        async def act() -> Response:
            today = site.console.clock().astimezone(site.console.zone).date()
            change = read_change(kind, values, account=who.name, today=today)
            if isinstance(change, ConfirmBen) and not who.is_open:
                await _second_person(request, site, change.second, values.get("second_password", ""))
            await site.console.actions.change_course(patient_id, change, by=by_of(values, who.name))
            return RedirectResponse(f"/console/patients/{patient_id}?done={kind}", status_code=303)

        def again(errors: Mapping[str, str]) -> Response:
            return pages.change(request, who, patient_id, kind, values=values, errors=errors)

        return await _acted(site, request, who, act, again)

    return router


class _Pages:
    """What the templates need, gathered in a reading transaction each."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def common(self, request: Request) -> dict[str, Any]:
        language, wordings = self.site.language(request), self.site.console.wordings
        return {
            "today": self.today(),
            "giga": lambda per_mm3: giga(per_mm3, language),
            "plain": plain,
            "name_of": name_of,
            "told": lambda alert: told(alert, language, wordings),
            "told_of": lambda verdict: told_of(verdict, language, wordings),
            "remarks": wordings.words[language].remarks,
        }

    def today(self) -> date:
        return self.site.console.clock().astimezone(self.site.console.zone).date()

    def lists(self, request: Request, level: str) -> dict[str, Any]:
        today, most = self.today(), _LISTED + 1
        level = level if level in tuple(AlertLevel) else ""

        def look(connection: Any) -> dict[str, Any]:
            overdue = clinic.overdue(connection, today, most)
            return {
                "alerts": clinic.open_alerts(connection, most, level=level),
                "due": clinic.due(connection, today, _DUE_DAYS, most),
                "overdue": overdue,
                "late_levels": clinic.late_levels(connection, [one.id for one in overdue]),
                "unreadable": clinic.unreadable(connection, most),
                "baselines": clinic.missing_baselines(connection, today, most),
            }

        return {**self.site.read(look), "shown": _LISTED, "only": level, **self.common(request)}

    def patient(
        self, request: Request, who: Visitor, patient_id: str, template: str, *, span: str, verdicts: str, done: str
    ) -> Response:
        most = 500 if verdicts == "all" else 10
        file = self.site.read(clinic.patient_file, patient_id, verdicts=most)
        if file is None:
            return self.site.problem(request, who, 404)
        console = self.site.console
        view = patient_view(
            file,
            today=self.today(),
            zone=console.zone,
            protocol=console.protocol,
            span=span,
            on_paper=template == "clinic/print.html",
        )
        return self.site.page(
            request,
            who,
            template,
            view=view,
            spans=tuple(SPANS),
            readings={reading.id: reading for reading in view.protocol.readings} if view.protocol else {},
            changed=changed,
            all_verdicts=verdicts == "all" or len(file.verdicts) < most,
            done=done if done in FORMS or done == "answered" else "",
            **self.common(request),
        )

    def change(
        self,
        request: Request,
        who: Visitor,
        patient_id: str,
        kind: str,
        *,
        values: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
    ) -> Response:
        listed = self.site.read(clinic.patient_exists, patient_id)
        if listed is None:
            return self.site.problem(request, who, 404)
        return self.site.page(
            request,
            who,
            "clinic/change.html",
            status=422 if errors is not None else 200,
            listed=listed,
            forms=tuple(FORMS.values()),
            chosen=kind if kind in FORMS else "",
            values=values or {},
            errors=errors or {},
            **self.common(request),
        )

    def alert(
        self,
        request: Request,
        who: Visitor,
        alert_id: str,
        *,
        done: str = "",
        values: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
    ) -> Response:
        file = self.site.read(clinic.alert_file, alert_id)
        if file is None:
            return self.site.problem(request, who, 404)
        return self.site.page(
            request,
            who,
            "clinic/alert.html",
            status=422 if errors is not None else 200,
            file=file,
            sources=_sources(file.row.alert.assessment),
            decisions=decisions_for(file.row.alert.family, file.row.alert.level, file.row.alert.reason),
            needs_reason=needs_reason,
            done=done if done == "answered" else "",
            values=values or {},
            errors=errors or {},
            **self.common(request),
        )


def _sources(verdict: Assessment | None) -> tuple[Source, ...]:
    """The publications that a verdict's protocol cites; none where this version does not have the protocol."""
    try:
        return find_protocol(verdict.protocol).sources if verdict is not None else ()
    except ProtocolError:
        return ()


def _values(form: FormData) -> dict[str, str]:
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _answer(values: Mapping[str, str], account: str) -> tuple[Decision, str]:
    errors: dict[str, str] = {}
    by, decision = "", None
    try:
        by = by_of(values, account)
    except NotTaken as refused:
        errors |= refused.errors
    try:
        decision = Decision(values.get("decision", ""))
    except ValueError:
        errors["decision"] = "missing" if not values.get("decision") else "bad-choice"
    if decision is not None and needs_reason(decision) and not values.get("reason", "").strip():
        errors["reason"] = "missing"
    if errors or decision is None:
        raise NotTaken(errors)
    return decision, by


async def _acted(
    site: Site,
    request: Request,
    who: Visitor,
    act: Callable[[], Awaitable[Response]],
    again: Callable[[Mapping[str, str]], Response],
) -> Response:
    try:
        return await act()
    except NotTaken as refused:
        errors: Mapping[str, str] = refused.errors
    except RefusedInput as refused:
        errors = {field_of(refused.field): refused.code}
    except LookupError:
        return await run_in_threadpool(site.problem, request, who, 404)
    except StoreUnavailable:
        return await run_in_threadpool(site.problem, request, who, 503)
    return await run_in_threadpool(again, errors)


async def _second_person(request: Request, site: Site, name: str, password: str) -> None:
    """The second person is an account that may answer, and is at the keyboard: its own password says so. Guesses count
    against that account's log-in. Raises NotTaken."""
    gate: auth.Gate = request.state.gate
    name = auth.name_of(name)
    if gate.by_name.wait_s(name, time.monotonic()) > 0:
        raise NotTaken({"second_password": "throttled"})
    gate.by_name.failed(name, time.monotonic())
    held = await run_in_threadpool(site.read, accounts.find, name)
    good = await gate.verifies(held, password)
    if not good or held is None or held.role not in tuple(Role) or Right.ANSWER not in RIGHTS[Role(held.role)]:
        raise NotTaken({"second_password": "second-refused"})
    gate.by_name.succeeded(name)
