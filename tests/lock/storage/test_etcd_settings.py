"""Where etcd is, as people write it."""

from __future__ import annotations

import pytest

from ipclocker.errors import UsageError
from ipclocker.lock.storage.etcd_settings import EtcdSettings, Member, read_url


@pytest.mark.parametrize(
    ("url", "member"),
    [
        ("http://db1", Member("db1", 2379, False)),
        (" https://db1.example.org:1234/ ", Member("db1.example.org", 1234, True)),
        ("http://10.0.0.1:80", Member("10.0.0.1", 80, False)),
        ("https://[fe80::1]:80", Member("fe80::1", 80, True)),
    ],
)
def test_a_url_names_a_member_whose_port_is_etcds_if_there_is_none(url: str, member: Member) -> None:
    assert read_url(url) == member
    assert read_url(str(member)) == member


@pytest.mark.parametrize(
    "url",
    [
        "",
        "db1:2379",
        "ftp://db1",
        "http://",
        "http://:2379",
        "http://db1:0",
        "http://db1:65536",
        "http://db1:x",
        "http://[::1",
        "http://d b",
        "http://d\nb",
        "http://db\xe4",
        "http://ann:secret@db1",
        "http://db1/v3",
        "http://db1?x",
        "http://db1#x",
    ],
)
def test_what_is_no_url_of_a_member_is_named_in_one_line(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        EtcdSettings.from_text(f"http://good,{url}")
    assert "etcd" in str(caught.value) and "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_have_whole_urls_each_once_and_a_prefix_with_its_end() -> None:
    settings = EtcdSettings.from_text(
        "http://a,http://a:2379,https://b:1", "locks", cacert="", user="u", password_file="f"
    )
    assert settings == EtcdSettings(("http://a:2379", "https://b:1"), "locks/", None, None, None, "u", "f")
    assert settings.checked() == settings
    assert EtcdSettings.from_text("http://a").prefix == "ipclocker/"


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"prefix": ""}, "the prefix of etcd's keys '' is empty"),
        ({"prefix": "a b"}, "'a b' is empty, or has white space"),
        ({"prefix": "a\0b"}, "white space"),
        ({"cert": "c"}, "--etcd-cert 'c' is of no use without --etcd-key"),
        ({"key": "k"}, "--etcd-key 'k' is of no use without --etcd-cert"),
        ({"user": "u"}, "--etcd-user 'u' is of no use without --etcd-password-file"),
        ({"password_file": "f"}, "--etcd-password-file 'f' is of no use without --etcd-user"),
    ],
)
def test_settings_that_mean_nothing_are_refused(others: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EtcdSettings.from_text("https://a", **others)


def test_certificates_are_refused_where_no_url_is_https() -> None:
    with pytest.raises(UsageError, match="certificates are for https"):
        EtcdSettings.from_text("http://a", cacert="ca.crt")
    with pytest.raises(UsageError, match="no URL of etcd is given"):
        EtcdSettings(()).checked()
