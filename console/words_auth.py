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
    "login.problem.no-passwords": (
        "Les comptes locaux sont désactivés. Connectez-vous par le fournisseur d’identité.",
        "Local accounts are switched off. Log in through the identity provider.",
    ),
    "login.problem.sign-on-refused": (
        "Le fournisseur d’identité n’a pas confirmé votre identité, ou votre compte est désactivé ici.",
        "The identity provider did not confirm who you are, or your account is disabled here.",
    ),
    "login.problem.sign-on-stale": (
        "Cette connexion a expiré ou a été ouverte dans un autre navigateur. Recommencez.",
        "This log-in has expired or was begun in another browser. Please begin again.",
    ),
    "login.problem.provider-away": (
        "Le fournisseur d’identité ne répond pas. Réessayez dans un instant.",
        "The identity provider does not answer. Try again in a moment.",
    ),
    "login.problem.no-role": (
        "Vous êtes connu du fournisseur d’identité, mais aucun rôle ne vous est attribué dans NeutroFlag.",
        "The identity provider knows you, but gives you no role in NeutroFlag.",
    ),
    "login.problem.name-taken": (
        "Un autre compte porte déjà ce nom. Un administrateur doit d’abord régler cela.",
        "Another account has this name already. An administrator must settle this first.",
    ),
    "login.provider": ("Se connecter avec {label}", "Log in with {label}"),
    "login.provider.unnamed": ("Se connecter avec le fournisseur d’identité", "Log in with the identity provider"),
    "login.local": ("Compte local", "Local account"),
    "login.left": ("Vous êtes déconnecté de NeutroFlag.", "You are logged out of NeutroFlag."),
    "login.left.provider": (
        "Sur un poste partagé, fermez aussi la session du fournisseur d’identité :",
        "On a shared machine, end the session at the identity provider as well:",
    ),
    "login.leave-provider": ("la fermer", "end it"),
    "login.entered": ("Connecté", "Logged in"),
    "login.go-on": ("Continuer", "Continue"),
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
