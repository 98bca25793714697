"""The rules of detect-secrets (Yelp, Apache-2.0), one plugin at a time and without its scanner.

Its scanner keeps global settings, asks filters of its own and can verify what it finds over the
network. A plugin's
``analyze_string`` does none of that: it holds a text against patterns. Left out are
``KeywordDetector`` and the entropy
plugins, since :mod:`pytest_nixos.secrets.pairs` knows more forms of names and values, and
``IPPublicDetector``: an
address is no secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.ibm_cloud_iam import IbmCloudIamDetector
from detect_secrets.plugins.ibm_cos_hmac import IbmCosHmacDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.softlayer import SoftlayerDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from pytest_nixos.secrets.hit import Found
from pytest_nixos.secrets.values import entropy, is_sample

__all__ = ["by_plugin"]

_CLASSES: tuple[type[RegexBasedDetector], ...] = (
    ArtifactoryDetector,
    AWSKeyDetector,
    AzureStorageKeyDetector,
    CloudantDetector,
    DiscordBotTokenDetector,
    GitHubTokenDetector,
    GitLabTokenDetector,
    IbmCloudIamDetector,
    IbmCosHmacDetector,
    MailchimpDetector,
    NpmDetector,
    OpenAIDetector,
    PypiTokenDetector,
    SendGridDetector,
    SlackDetector,
    SoftlayerDetector,
    SquareOAuthDetector,
    StripeDetector,
    TelegramBotTokenDetector,
    TwilioKeyDetector,
)
#: Each of their patterns needs one of these on the line: found much faster than forty patterns.
_WORDS = (
    *("AKC", "AP", "A3T", "ABIA", "ACCA", "AKIA", "ASIA", "AC", "SK", "AccountKey", "GR1348941"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "gl", "-us", "_authToken", "T3BlbkFJ", "pypi-"),
    *("SG.", "xox", "hooks.slack", "sq0csp", "k_live"),
)
_WORDS_IN_ANY_CASE = ("aws", "cl", "ibm", "bx", "cos", "hmac", "softlayer", "sl")
_FORMS = re.compile(r"[MNO][A-Za-z\d_-]{23,25}\.|^\d{8,10}:")


#: No pattern is as short as this.
_LEAST = 12


def _may_hold(line: str) -> bool:
    low = line.lower()
    return (
        any(word in line for word in _WORDS)
        or any(word in low for word in _WORDS_IN_ANY_CASE)
        or _FORMS.search(line) is not None
    )


@cache
def _plugins() -> tuple[RegexBasedDetector, ...]:
    return tuple(each() for each in _CLASSES)


def by_plugin(text: str) -> Iterator[Found]:
    """Find what the plugins know, line by line, as they are made for."""
    start = 0
    for line in text.splitlines(keepends=True):
        if len(line) > _LEAST and _may_hold(line):
            yield from _of_line(line, start)
        start += len(line)


def _of_line(line: str, start: int) -> Iterator[Found]:
    for plugin in _plugins():
        for answer in plugin.analyze_string(line.rstrip("\r\n")):
            secret = answer.strip(" \t\"'=:")
            at = line.find(secret)
            # Several patterns have no borders, and match inside of longer texts: hashes, keys,
            # images.
            inside = at < 0 or _runs_on(line, at, at + len(secret))
            if secret and not inside and not is_sample(secret) and entropy(secret) >= 2.8:
                kind = str(plugin.secret_type)
                yield Found(start=start + at, end=start + at + len(secret), kind=kind)


def _runs_on(line: str, start: int, end: int) -> bool:
    before, after = line[start - 1 : start], line[end : end + 1]
    return bool(re.match(r"[A-Za-z0-9+/_]", before)) or bool(re.match(r"[A-Za-z0-9+/_]", after))
