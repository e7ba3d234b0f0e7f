"""Account names of people: by key, by the phrases of session logs, in URLs, mail addresses of hosts and home directories.

No account name has a checksum: any string can be one. The key, the phrase or the folder decides, and the names of system
accounts and the words that usually stand in the same place ("user session") are refused.
"""

from __future__ import annotations

import re

from privacy.recognizers.spec import KEY, LEFT, SEP, Candidate, Recognizer, compiled
from privacy.recognizers.view import word_set

_SYSTEM = word_set(
    """
    root admin administrator system daemon nobody guest test user users unknown null none nil undefined anonymous www-data
    www postgres postgresql mysql mongodb mongo redis oracle mssql sa nginx apache httpd tomcat service localsystem
    localservice networkservice default public shared all true false yes no ubuntu centos debian ec2-user runner invalid bin
    sys sync games man lp mail news uucp proxy backup list irc gnats sshd cyrus ftp ntp chrony named bind postfix dovecot
    exim squid git jenkins hadoop hdfs yarn mapred spark zookeeper kafka hbase hive elasticsearch rabbitmq systemd
    messagebus dbus polkitd operator halt shutdown adm nfsnobody rpc rpcuser gdm xfs pcap haldaemon docker kube kubernetes
    prometheus grafana vagrant deploy
    """
)
_WORDS = word_set(
    """
    name id ids anyone someone me you my his her their our your authenticated missing required empty the a an is are was
    were not and or in on at to for from by with of request requests input session sessions agent agents action actions
    account accounts login logout logon password passwords profile group groups data space mode interface defined home dir
    directory config settings setting error errors event events info store cache pool role roles permission permissions
    management services table state status count context object type types field level access token tokens key keys host
    address authentication authorization connection cancelled canceled aborted logged created deleted updated removed added
    denied failed failure success has had will can cannot could does did does-not that this which who whose if when then
    else string int integer value values exists existing found unknown-user initiated interaction experience guide manual
    story stories feedback review input-error process thread message messages query queries activity limit quota preferences
    details information records record lookup
    """
)
_HOSTS = compiled(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|localhost")


def account_like(value: str) -> bool:
    """Whether a string in the place of an account name may name a person."""
    name = value.strip(".-").rsplit("\\", 1)[-1].lower()
    if name in _SYSTEM or name in _WORDS or not any(c.isalnum() for c in name) or _HOSTS.fullmatch(name):
        return False
    return not (name.isdigit() and len(name) < 4) and not name.startswith("0x")


def _keyed(found: Candidate) -> float:
    if found.after(1) in ("=", "(") or found.after(11).lower() == ";accountkey":
        return 0.0  # the value is empty and this is the next key, a call, or the name of a storage account
    return 0.8 if account_like(found.value) else 0.0


def _phrase(found: Candidate) -> float:
    return 0.8 if found.after(1) != "=" and account_like(found.value) else 0.0


def _windows(found: Candidate) -> float:
    """`\\nCaused` and `\\tat` are escapes of a text, not the name behind a domain."""
    value = found.value
    single = found.text[max(0, found.start - 2) : found.start - 1] != "\\"
    if single and value[0] in "nrt" and (value[1:2].isupper() or value.startswith("tat")):
        return 0.0
    return _phrase(found)


def _prose(found: Candidate) -> float:
    return 0.7 if any(c in "0123456789_.-" for c in found.value.strip(".")) and account_like(found.value) else 0.0


def _url_user(found: Candidate) -> float:
    """In front of a password any name counts; alone, the names of machines' accounts (`git@`) do not."""
    return 0.97 if found.after(1) == ":" or account_like(found.value) else 0.0


_NAME = r"([0-9A-Za-z_][0-9A-Za-z_.@+$-]{1,63})"
_QUOTED = r"[\"'`\[<]?"
_KEYS = (
    r"(?:(?:remote|auth|db|login|logged[_ -]?in|current|target|effective|real|audit|sasl|ssh|ldap|os|sudo)[_ .-]?)?"
    r"user(?:[_ .-]?(?:name|id|login|principal(?:[_ .-]?name)?))?|usr|uname|log[io]n(?:[_ -]?(?:name|id|user))?"
    r"|logname|ruser|acct"
    r"|account[_ -]?name|screen[_ ]?name|handle|nick(?:[_ -]?name)?|owner|principal|actor|operator|assignee"
    r"|reporter|submitter"
    r"|committer|(?:created|updated|modified|deleted|approved|requested|submitted|assigned|uploaded|changed)[_ -]?(?:by|to)"
    r"|(?:sam|samaccount)[_ -]?name|identity|subject[_ -]?id|uid|member[_ -]?name|用户名|登录名|用户|账户名|昵称|操作员"
)

_SESSION = (
    LEFT
    + r"(?:(?:invalid|illegal|unknown|failed|authenticating|authenticated|disconnected from|closed by|reset by|for|by|from|as"
    r"|of|new|delete[d]?|remove[d]?|added|locked|disabled)(?: (?:invalid|illegal|authenticating))? user[:=]?"
    r"|(?:password|publickey|none|hostbased|gssapi-with-mic|keyboard-interactive\S{0,8}|session (?:opened|closed)"
    r"|authentication (?:failed|failure|succeeded)|login|log[io]n (?:failed|failure|succeeded|attempt))"
    r" (?:for|by|from)(?: invalid| illegal)?(?: user)?|su(?:\[[0-9]{1,7}\])?: \(to|su to|authenticated as|logged (?:in|on) as"
    r"|logged (?:in|on):?|login:|signed in as|running as|impersonat(?:ing|ed)|on behalf of|login on \S{1,16} by"
    r"|access denied for user"
    r"|input_userauth_request: invalid user)\s{1,2}" + _QUOTED
)
# Any name but those that most lines of a session log hold and `account_like` refuses: spares the closer look at them.
_USUAL = ("root", "admin", "administrator", "guest", "invalid", "news", "nobody", "test", "unknown", "user", "from")
_SIGN = r"[0-9A-Za-z_.@+$-]"


def _departing(taken: str = "") -> str:
    """How a name goes on that is none of _USUAL and no number below 1000, as far as the sign by which it departs from them.

    Written out sign by sign, because an expression of the multi-pattern engine cannot look ahead.
    """
    following = sorted({word[len(taken)] for word in _USUAL if word.startswith(taken) and word != taken})
    others = sorted(set("abcdefghijklmnopqrstuvwxyz_" + ("0123456789.@+$-" if taken else "")) - set(following))
    sign = "[" + re.escape("".join(others)) + "]"
    ways = [sign] if taken else [r"[0-9]{1,3}[A-Za-z_.@+$-]", "[0-9]{4}", sign + _SIGN]
    return "(?:" + "|".join([*ways, *(char + _departing(taken + char) for char in following)]) + ")"


def _unusual(more: str, end: str) -> str:
    """A name that is none of _USUAL: `more` follows where it departs from them, `end` where it is the beginning of one."""
    cut = {word[:size] for word in _USUAL for size in range(2, len(word))} - set(_USUAL)
    return f"(?:{_departing()}{more}|(?:{'|'.join(sorted(cut))}){end})"


_ENDS = _SIGN + r"{0,63}(?![0-9A-Za-z_.@+$=(-])"
_NAME_END = r"(?![0-9A-Za-z_.@+$-])"
_SUBJECT = LEFT + r"(?:user|account|member)\s{1,2}" + _QUOTED
_PREDICATE = (
    r"[\"'`\]>]?(?=(?:@[\w.-]{1,64})? (?:from [0-9]|(?:has )?(?:logged|signed|connected|disconnected|authenticated)"
    r"|log(?:in|out|s)|not allowed|is (?:locked|not|now)"
    r"|was (?:created|deleted|added|removed|locked|denied|granted)|created|deleted|failed|requested|changed|uploaded"
    r"|downloaded|accessed|attempted|denied|does not|unknown to))"
)
_DOMAIN = r"(?:[0-9A-Za-z_.-]{1,32}\\{1,2})?"

ACCOUNTS: tuple[Recognizer, ...] = (
    Recognizer(
        "username_key",
        "USERNAME",
        compiled(
            KEY + r"(?:" + _KEYS + r")" + SEP + r"(" + _DOMAIN + r"[0-9A-Za-z_][0-9A-Za-z_.@+$-]{1,63})(?![0-9A-Za-z_.@+$=(-])"
        ),
        0.8,
        "no checksum: any string can be an account name; the key decides, system accounts are refused",
        group=1,
        check=_keyed,
        words=(
            "user",
            "usr",
            "log",
            "uname",
            "name",
            "handle",
            "nick",
            "owner",
            "principal",
            "actor",
            "operator",
            "assign",
            "report",
            "submit",
            "commit",
            "by",
            "to",
            "identity",
            "subject",
            "uid",
            "acct",
            "用户",
            "登录名",
            "账户名",
            "昵称",
            "操作员",
        ),
        near=(compiled(KEY + r"(?:" + _KEYS + r")" + SEP + _DOMAIN + _unusual(_ENDS, r"(?![0-9A-Za-z_.@+$=(-])")),),
        version="2",
    ),
    Recognizer(
        "username_session",
        "USERNAME",
        compiled(_SESSION + _NAME),
        0.8,
        "no checksum; the phrase of the session log decides",
        group=1,
        check=_phrase,
        words=(" user", " for ", " as ", " by ", "su", "log", "of ", "impersonat", " from "),
        near=(compiled(_SESSION + _unusual("", _NAME_END)),),
        version="2",
    ),
    Recognizer(
        "username_subject",
        "USERNAME",
        compiled(
            _SUBJECT + r"([0-9A-Za-z_][0-9A-Za-z_.@+$-]{1,63}?)" + _PREDICATE,
        ),
        0.75,
        "no checksum; subject of a sentence about a session",
        group=1,
        check=_phrase,
        words=("user ", "account ", "member "),
        near=(compiled(_SUBJECT + _unusual(_SIGN + "{0,63}" + _PREDICATE, _PREDICATE)),),
    ),
    Recognizer(
        "username_quoted",
        "USERNAME",
        compiled(
            LEFT + r"(?:user|username|login|account|role)\s{1,2}(?:[\"'`]"
            r"|\\\")([0-9A-Za-z_][0-9A-Za-z_.@+$-]{1,63})(?=[\"'`\\])"
        ),
        0.75,
        "no checksum; a name in quotes after the word for an account",
        group=1,
        check=_phrase,
        words=("user", "login", "account", "role"),
    ),
    *(
        Recognizer(
            name,
            "USERNAME",
            compiled(pattern),
            0.8,
            "no checksum; the place that this log gives to an account",
            group=1,
            check=_windows if name == "username_windows" else _phrase,
            words=words,
        )
        for name, pattern, words in (
            ("username_sudo", LEFT + r"sudo(?:\[[0-9]{1,7}\])?:\s{1,8}([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})(?= : )", ("sudo",)),
            ("username_cron", LEFT + r"crond?(?:\[[0-9]{1,7}\])?: \(([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})\)", ("cron",)),
            (
                "username_access_log",
                r"\A[0-9A-Za-z.:-]{3,100} \S{1,64} ([0-9A-Za-z_][0-9A-Za-z_.@-]{1,63}) \[[0-9]{2}/",
                (" [",),
            ),
            ("username_attempt", LEFT + r"login attempt \[(?:b')?([0-9A-Za-z_][0-9A-Za-z_.@-]{1,63})(?=['/])", ("login",)),
            (
                "username_windows",
                r"(?<![0-9A-Za-z\\/:.])(?-i:[A-Z][A-Z0-9-]{1,14})\\{1,2}([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})(?![\\/0-9A-Za-z:])",
                ("\\",),
            ),
        )
    ),
    Recognizer(
        "username_prose",
        "USERNAME",
        compiled(
            LEFT + r"(?:user ?name|user ?id|login(?: name| id)?|screen name"
            r"|handle)\s{1,2}(?:is|was)\s{1,2}[\"']?([0-9A-Za-z_][0-9A-Za-z_.-]{2,40})"
        ),
        0.7,
        "no checksum; cue words, and the value must not be an ordinary word",
        group=1,
        check=_prose,
        words=("user", "login", "name", "handle"),
    ),
    Recognizer(
        "home_directory",
        "USERNAME",
        compiled(
            r"(?:/home/|/Users/|[\\/]{1,2}(?:Users|Documents and Settings|home)[\\/]{1,2}|/export/home/|/nfs/home/"
            r"|/var/(?:spool/)?mail/"
            r"|/var/spool/cron/(?:crontabs/)?|(?<![0-9A-Za-z~])~(?=[a-z][0-9A-Za-z_.-]{1,40}/)|%2Fhome%2F)"
            r"([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})"
        ),
        0.8,
        "no checksum; the folder above decides",
        group=1,
        check=lambda found: 0.8 if account_like(found.value) else 0.0,
        words=("home", "users", "mail/", "settings", "/cron/", "~"),
        version="2",
    ),
    Recognizer(
        "url_user",
        "USERNAME",
        compiled(r"://([^\s/:@<>\"'?#]{1,64})(?::[^\s/@<>\"']{0,128})?@"),
        0.97,
        "no checksum; userinfo of a URL (RFC 3986 section 3.2.1)",
        group=1,
        check=_url_user,
        words=("://",),
        version="2",
    ),
    Recognizer(
        "user_at_host",
        "USERNAME",
        compiled(
            r"(?<![0-9A-Za-z])(?:ssh|scp|sftp|rsync|mosh|for|as|by|user|login) (?:-[\w-]{1,20} ){0,3}"
            r"([0-9A-Za-z_][0-9A-Za-z_.-]{1,40})(?=@[0-9A-Za-z][0-9A-Za-z.-]{1,80})"
        ),
        0.75,
        "no checksum; a name before the host it logs in to",
        group=1,
        check=_phrase,
        words=("@",),
    ),
)
