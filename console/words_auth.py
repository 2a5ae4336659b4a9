"""The words of the log-in and of what it refuses, French and English."""

from __future__ import annotations

__all__ = ["AUTH"]

AUTH: dict[str, tuple[str, str]] = {
    "login.title": ("Connexion", "Log in"),
    "login.name": ("Nom", "Name"),
    "login.password": ("Mot de passe", "Password"),
    "login.submit": ("Se connecter", "Log in"),
    "login.problem.refused": ("Nom ou mot de passe incorrect.", "The name or the password is wrong."),
    "login.problem.throttled": (
        "Trop de tentatives. Réessayez dans quelques minutes.",
        "Too many attempts. Try again in a few minutes.",
    ),
    "login.problem.stale": (
        "Cette page était trop ancienne. Saisissez à nouveau.",
        "This page was too old. Please enter it again.",
    ),
    "notice.home": ("Retour à la console", "Back to the console"),
    "notice.no-accounts.title": ("Aucun compte", "No account"),
    "notice.no-accounts.text": (
        "Hors de cette machine, la console demande un compte. Créez le premier avec la commande : "
        "neutroflag users add NOM --role admin",
        "Away from this machine the console needs an account. Create the first with the command: "
        "neutroflag users add NAME --role admin",
    ),
    "notice.no-right.title": ("Accès refusé", "Not allowed"),
    "notice.no-right.text": (
        "Votre rôle ne donne pas accès à cette page.",
        "Your role does not give access to this page.",
    ),
    "notice.other-origin.title": ("Formulaire refusé", "Form refused"),
    "notice.other-origin.text": (
        "Ce formulaire ne vient pas d’une page de cette console. Rien n’a été enregistré.",
        "This form does not come from a page of this console. Nothing was recorded.",
    ),
    "notice.stale-form.title": ("Formulaire trop ancien", "Form too old"),
    "notice.stale-form.text": (
        "Rien n’a été enregistré. Rouvrez la page et saisissez à nouveau.",
        "Nothing was recorded. Open the page again and enter it anew.",
    ),
    "notice.unreadable-form.title": ("Formulaire illisible", "Unreadable form"),
    "notice.unreadable-form.text": (
        "Le formulaire est trop long ou mal formé. Rien n’a été enregistré.",
        "The form is too long or malformed. Nothing was recorded.",
    ),
}
