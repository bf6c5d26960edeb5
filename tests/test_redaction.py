"""Secrets never reach a run file or a message; ordinary settings of a training run do."""

import pytest

from trainvitals.redaction import HIDDEN, is_secret_name, redact, redact_arguments, redact_text

SECRET = "Zq7-hunter2_XYZ"

HOSTILE_TEXTS = [
    f"postgresql://ann:{SECRET}@db.example:5432/runs?sslmode=verify-full",
    f"postgresql://ann:pa/{SECRET}@db/runs",
    f"postgresql://ann:p@{SECRET}@db/runs",
    f"postgresql://ann@db/runs?password={SECRET}&sslmode=require",
    f"postgresql://ann@db/runs?sslpassword={SECRET}",
    f"host=db user=ann password={SECRET} dbname=runs",
    f"host=db password='{SECRET} and more {SECRET}' dbname=runs",
    f"https://{SECRET}@github.com/me/repo.git",
    f"ftp://:{SECRET}@host/file",
    f"mongodb+srv://me:{SECRET}@cluster/x",
    f"https://api.example/v1?api_key={SECRET}",
    f"https://api.example/v1?access_token={SECRET}&a=1",
    f"https://x.blob.core.windows.net/c?sv=1&sig={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"curl -H 'Authorization: Basic {SECRET}'",
    f"export WANDB_API_KEY={SECRET}",
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f'{{"api_key": "{SECRET}", "lr": 0.1}}',
    f"{{'hf_token': '{SECRET}'}}",
    f"password: {SECRET}",
    f"Password={SECRET};Server=tcp:db",
    f"clientSecret={SECRET}",
    f"options=a=b=password={SECRET}",
    f"the password : {SECRET}",
    f"https://hooks.slack.com/services/T000/B000/{SECRET}",
]
TOKENS = [
    "ghp_16C7e42F292c6912E7710c838347Ae178B4",
    "github_pat_11ABCDEFG0123456789_abcdefghijk", "glpat-abcDEF123456789012",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEF", "sk-proj-abcdefghijklmnop1234", "sk-ant-api03-abcdefghij-klmnop",
    "xoxb-123456789012-abcdefABCDEF", "AKIAIOSFODNN7EXAMPLE", "AIzaSyA-1234567890abcdefghijklmnopqrs",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "pypi-AgEIcHlwaS5vcmcCJDAwMDAwMDAw",
    "npm_abcdefghijklmnop1234",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA cut off",
]  # fmt: skip
HOSTILE_COMMANDS = [
    ["train.py", "--password", SECRET],
    ["train.py", f"--password={SECRET}"],
    ["train.py", "--db-password", SECRET, "--lr", "0.1"],
    ["train.py", "--apiKey", SECRET],
    ["train.py", "--hf_token", SECRET],
    ["train.py", "--token", SECRET],
    ["train.py", "--secret", f"-{SECRET}"],
    ["train.py", f"wandb.api_key={SECRET}"],
    ["train.py", "--store", f"postgresql://w:{SECRET}@db/runs"],
    ["env", f"PGPASSWORD={SECRET}", "python", "train.py"],
    ["train.py", "--header", f"Authorization: Bearer {SECRET}"],
]
HOSTILE_VALUES = [
    {"password": SECRET},
    {"db": {"passwd": SECRET}},
    {"keys": [{"api_key": SECRET}]},
    {"tokens": {"hf_token": SECRET}},
    {"auth": [SECRET, SECRET]},
    {"secret": {"inner": SECRET}},
    {"credentials": (SECRET,)},
    {"openaiKey": SECRET},
    {f"https://u:{SECRET}@host": 1},
    {"command": ["run", "--password", SECRET]},
    {"note": f"the password={SECRET} is"},
]
ORDINARY = {
    "lr": 0.1, "max_tokens": 512, "tokenizer": "gpt2", "pad_token": "<pad>", "eos_token": "</s>", "token_dim": 64,
    "num_keys": 4, "key_dim": 16, "monkey": "x", "author": "me", "passes": 3, "compass": "n", "authoritative": True,
    "model": {"n_key_value_heads": 2, "name": "org/model-7b"}, "data": "https://host/data.tar", "seed": None,
    "layers": ["fc1", "fc2"], "sketch": "risk-averse-and-very-long-name", "keyboard": "us", "hash": "0f" * 20,
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_no_secret_is_left_in_a_text(text):
    assert SECRET not in redact_text(text)
    assert HIDDEN in redact_text(text)


@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
def test_a_token_of_a_known_shape_is_hidden_wherever_it_stands(token):
    assert redact_text(f"x {token} y") in (f"x {HIDDEN} y", f"x {HIDDEN}")
    assert redact({"name": [1, token]}) == {"name": [1, HIDDEN]}


@pytest.mark.parametrize("words", HOSTILE_COMMANDS, ids=range(len(HOSTILE_COMMANDS)))
def test_no_secret_is_left_in_a_command(words):
    shown = redact_arguments(words)
    assert SECRET not in " ".join(shown)
    assert len(shown) == len(words)


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=range(len(HOSTILE_VALUES)))
def test_no_secret_is_left_at_any_depth(value):
    assert SECRET not in repr(redact(value))


def test_what_is_no_secret_is_left_as_it_is():
    assert redact(ORDINARY) == ORDINARY
    words = ["train.py", "--max-tokens", "512", "--tokenizer", "gpt2", "--lr=0.1", "--pad-token", "<pad>"]
    assert redact_arguments(words) == words
    text = "step 5: loss: 0.3, see https://example.org/@me/page and postgresql://reader@db/runs at 12:30:01"
    assert redact_text(text) == text


def test_hiding_twice_changes_nothing_more():
    for text in [*HOSTILE_TEXTS, *TOKENS]:
        assert redact_text(redact_text(text)) == redact_text(text)


def test_an_empty_name_is_no_secret():
    assert not is_secret_name("")
