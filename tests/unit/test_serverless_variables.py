"""Variables have the values that the framework would find, and faults that say where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import compile_serverless
from servicelab import compiled, named, properties, write_service

FUNCTION = """
functions:
  hello:
    handler: app.handler
    environment:
"""


def value(folder: Path, written: str, text: str = "", **given: Any) -> Any:
    """What a variable in a function's environment comes to, below a file of this text."""
    service = compiled(folder, f"{text}{FUNCTION}      X: {written}\n", **given)
    return properties(service, "HelloLambdaFunction").get("Environment", {"Variables": {}})["Variables"].get("X")


def fault(folder: Path, written: str, text: str = "", **given: Any) -> str:
    """What is said of a variable that has no value."""
    with pytest.raises(TemplateError) as raised:
        value(folder, written, text, **given)
    return str(raised.value)


CUSTOM = """
custom:
  name: people
  nested: {a: {b: [x, y]}}
  stages: {dev: {size: 1}, prod: {size: 2}}
  deep: ${self:custom.deeper}
  deeper: ${self:custom.name}
  escaped: \\${self:custom.name}
"""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${self:custom.name}", "people"),
        ("a-${self:custom.name}-${self:custom.stages.dev.size}", "a-people-1"),
        ("${self:custom.nested.a.b.1}", "y"),
        ("${self:custom.stages.${sls:stage}.size}", "1"),
        ("${self:custom.deep}", "people"),
        ("${self:custom.absent, 'else'}", "else"),
        ("${self:custom.absent, self:custom.name}", "people"),
        ("${self:custom.absent, null}", None),
        ("${self:custom.escaped}", "${self:custom.name}"),
        ("${self:service}-${self:provider.runtime}", "chat-python3.12"),
        ("${sls:stage}", "dev"),
        ("${self:provider.stage}", "dev"),
        ("${opt:stage, 'test'}", "test"),
        ("${opt:stage}", "dev"),
        ("${opt:memory, 512}", "512"),
        ("${aws:accountId}", "123456789012"),
        ("${aws:region}", "us-east-1"),
        ("${env:GIVEN}", "given"),
        ("${env:ABSENT, 'else'}", "else"),
        ("${env:EMPTY, 'else'}", ""),
        ("${strToBool(${env:TRUE})}", "true"),
        ("${strToBool('0')}", "false"),
        ("arn:${AWS::Partition}:${self:custom.name}", "arn:${AWS::Partition}:people"),
    ],
)
def test_a_variable_has_the_value_of_its_first_source_that_has_one(
    tmp_path: Path, written: str, expected: str | None
) -> None:
    """Sources are asked from left to right, and texts are put together."""
    environment = {"GIVEN": "given", "TRUE": "True", "EMPTY": ""}
    assert (
        value(tmp_path, f'"{written}"' if "," not in written else written, CUSTOM, environment=environment) == expected
    )


def test_a_mapping_may_be_taken_over_whole(tmp_path: Path) -> None:
    """A variable that is a mapping brings the values of the variables in it."""
    service = compiled(
        tmp_path,
        """
        custom:
          shared: {A: "${sls:stage}", B: 1}
        functions:
          hello: {handler: app.handler, environment: "${self:custom.shared}"}
        """,
    )
    assert properties(service, "HelloLambdaFunction")["Environment"] == {"Variables": {"A": "dev", "B": "1"}}


def test_the_instance_id_is_the_same_at_every_start(tmp_path: Path) -> None:
    """It is random for the framework; here it must not change what runs whenever the file is read again."""
    first = value(tmp_path, "${sls:instanceId}")
    assert len(first) == 32
    assert value(tmp_path, "${sls:instanceId}") == first


def test_options_come_before_the_provider(tmp_path: Path) -> None:
    """The stage and region are the options', else the provider's, and name the stack."""
    head = "service: chat\nprovider: {name: aws, stage: prod, region: eu-west-1}\n"
    said = compiled(tmp_path, "", head=head)
    assert (said.stack_name, said.stage, said.region) == ("chat-prod", "prod", "eu-west-1")
    chosen = compiled(tmp_path, "", head=head, options={"stage": "try", "region": "us-west-1"})
    assert (chosen.stack_name, chosen.stage, chosen.region) == ("chat-try", "try", "us-west-1")
    parameters = compiled(tmp_path, "", head=head, parameters={"stage": "p", "opt:region": "eu-north-1"})
    assert (parameters.stage, parameters.region) == ("p", "eu-north-1")
    assert compiled(tmp_path, "", head=head, options={"stage": "o"}, parameters={"stage": "p"}).stage == "o"


def test_a_stage_that_nobody_says_is_noted(tmp_path: Path) -> None:
    """Where the framework would stop for want of --stage, the default stage is taken and said."""
    head = "service: chat\nprovider: {name: aws, stage: '${opt:stage}'}\n"
    service = compiled(tmp_path, "", head=head)
    assert service.stage == "dev"
    assert "opt:stage=…" in named(service)["serverless.yml:2 ${opt:stage}"]


def test_a_stage_that_is_no_name_is_refused(tmp_path: Path) -> None:
    """Stages are letters, digits and hyphens."""
    head = "service: chat\nprovider:\n  name: aws\n  stage: a/b\n"
    with pytest.raises(TemplateError, match=r"yml:4: expected letters.*'a/b'"):
        compiled(tmp_path, "", head=head)


PARAMS = """
params:
  default: {a: default, b: default, c: default, d: "${sls:stage}!"}
  dev: {b: dev, c: dev}
stages:
  default: {params: {e: all}}
  dev: {params: {c: newest}}
"""


@pytest.mark.parametrize(
    ("name", "expected"), [("a", "default"), ("b", "dev"), ("c", "newest"), ("d", "dev!"), ("e", "all"), ("f", "mine")]
)
def test_parameters_are_the_users_then_the_stages_then_the_defaults(tmp_path: Path, name: str, expected: str) -> None:
    """`params` and version 4's `stages` are both read."""
    assert value(tmp_path, f"${{param:{name}}}", PARAMS, parameters={"f": "mine"}) == expected
    assert value(tmp_path, f"${{param:{name}}}", PARAMS, parameters={name: "mine"}) == "mine"


FILES = {
    "limits_yml": "dev: {size: 3, name: 'for-${self:service}'}\nlist: [a, b]\n",
    "more_json": '{"a": {"b": "c"}, "again": "${file(./limits.yml):dev.size}"}',
    "note_txt": "stage ${sls:stage}",
    "literal_js": "'use strict';\nmodule.exports = { a: { b: 'written out', n: 2, }, list: [true, \"x\"] };\n",
    "module_ts": "export default {a: 'typed'};",
    "program_js": "module.exports = () => ({ a: 1 });",
    "names_js": "module.exports = { a: other };",
    "indirect_yml": "all: ${file(./limits.yml)}",
}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${file(./limits.yml):dev.size}", "3"),
        ("${file(limits.yml):${sls:stage}.name}", "for-chat"),
        ("${file(./limits.yml):list.1}", "b"),
        ("${file(./more.json):a.b}", "c"),
        ("${file(./more.json):again}", "3"),
        ("${file(./indirect.yml):all.dev.size}", "3"),
        ("${file(./note.txt)}", "stage dev"),
        ("${file(./literal.js):a.b}", "written out"),
        ("${file(./literal.js):list.0}", "true"),
        ("${file(./module.ts):a}", "typed"),
        ("${file(./absent.yml):a, 'else'}", "else"),
        ("${file(./limits.yml):absent.further, 'else'}", "else"),
    ],
)
def test_files_are_read_beside_the_service(tmp_path: Path, written: str, expected: str) -> None:
    """YAML, JSON, texts and objects written out in JavaScript are read, with the variables in them."""
    assert value(tmp_path, written, **FILES) == expected


@pytest.mark.parametrize("name", ["program", "names"])
def test_a_program_is_not_run_but_may_be_stood_in_for(tmp_path: Path, name: str) -> None:
    """What only running JavaScript could say is named, with the parameter that says it instead."""
    written = f"${{file(./{name}.js):a}}"
    said = fault(tmp_path, written, **FILES)
    assert f"{name}.js is a program" in said
    assert f"'file(./{name}.js):a=…'" in said
    assert value(tmp_path, written, parameters={f"file(./{name}.js):a": "given"}, **FILES) == "given"


def test_every_file_that_is_read_is_watched(tmp_path: Path) -> None:
    """What a change of would change the service is told."""
    (tmp_path / ".env").write_text("A=1")
    service = compiled(tmp_path, "custom: ${file(./a.yml)}\nlayers: ${file(./b.json)}\n", a_yml="a: 1", b_json="{}")
    assert sorted(path.name for path in service.watched) == [".env", "a.yml", "b.json"]


@pytest.mark.parametrize(
    ("written", "name", "what"),
    [
        ("${ssm:/path/name}", "ssm:/path/name", "a value of SSM"),
        ("${ssm(us-west-2, raw):/path/name}", "ssm:/path/name", "a value of SSM"),
        ("${cf:other-${sls:stage}.Url}", "cf:other-dev.Url", "another stack's output"),
        ("${cf(eu-west-1):other.Url}", "cf(eu-west-1):other.Url", "another stack's output"),
        ("${s3:bucket/some/key.txt}", "s3:bucket/some/key.txt", "an object in S3"),
        ("${aws:ssm:/path}", "aws:ssm:/path", "a value of"),
        ("${vault:secret/x}", "vault:secret/x", "a value of the source 'vault'"),
        ("${git:sha1}", "git:sha1", "what git says"),
    ],
)
def test_what_cannot_be_had_here_needs_a_parameter_or_a_default(
    tmp_path: Path, written: str, name: str, what: str
) -> None:
    """A source that is elsewhere is stood in for by the user's parameter, else by the default, which is said."""
    said = fault(tmp_path, written)
    assert said.startswith(f"{tmp_path / 'serverless.yml'}:11: {written} has no value: {what}")
    assert value(tmp_path, written, parameters={name: "given"}) == "given"
    fallen_back = f"{written[:-1]}, 'default'}}"
    service = compiled(tmp_path, f"{FUNCTION}      X: {fallen_back}\n")
    assert properties(service, "HelloLambdaFunction")["Environment"]["Variables"]["X"] == "default"
    assert what in named(service)[f"serverless.yml:11 {fallen_back}"]
    assert value(tmp_path, fallen_back, parameters={name: "given"}) == "given"


def test_another_source_that_is_asked_instead_is_said(tmp_path: Path) -> None:
    """Not only literals take the place of what cannot be had here."""
    written = "${ssm:/path, self:service}"
    service = compiled(tmp_path, f"{FUNCTION}      X: {written}\n")
    assert properties(service, "HelloLambdaFunction")["Environment"]["Variables"]["X"] == "chat"
    assert "a value of SSM" in named(service)[f"serverless.yml:11 {written}"]


def test_what_several_places_take_over_stays_what_it_is(tmp_path: Path) -> None:
    """A change in one of the places is none in the others."""
    service = compiled(
        tmp_path,
        """
        custom: {shared: "${file(./shared.yml)}"}
        functions:
          - a: {handler: app.a, environment: "${self:custom.shared}"}
          - b: {handler: app.b, environment: "${self:custom.shared}"}
          - c: {handler: app.c, environment: "${file(./shared.yml)}"}
          - a: {environment: {X: other, Y: more}}
        resources:
          Resources: {BLambdaFunction: {Properties: {Environment: {Variables: {X: mine}}}}}
        """,
        shared_yml="X: ${sls:stage}\n",
    )
    variables = {name: properties(service, f"{name}LambdaFunction")["Environment"]["Variables"] for name in "ABC"}
    assert variables == {"A": {"X": "other", "Y": "more"}, "B": {"X": "mine"}, "C": {"X": "dev"}}


def test_a_secret_of_ssm_that_is_json_is_an_object(tmp_path: Path) -> None:
    """As for the framework; with `raw` it stays a text."""
    custom = "custom:\n  secret: ${ssm:/secret}\n"
    parameters = {"ssm:/secret": '{"password": "x"}', "ssm:/other": "{no json"}
    assert value(tmp_path, "${self:custom.secret.password}", custom, parameters=parameters) == "x"
    assert value(tmp_path, "${ssm(raw):/secret}", parameters=parameters) == '{"password": "x"}'
    assert value(tmp_path, "${ssm:/other}", parameters=parameters) == "{no json"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${env:ABSENT}", "the environment has no ABSENT"),
        ("${opt:color}", "'opt:color=…'"),
        ("${param:color}", "'color=…'"),
        ("${self:custom.absent}", "there is no custom.absent in serverless.yml"),
        ("${file(./absent.yml):a}", "there is no such file, or it has no 'a'"),
        ("${strToBool('maybe')}", "expected true, false, 1 or 0"),
        ("${sls:absent}", "expected sls:stage or sls:instanceId"),
        ("${env:}", "expected a name after env:"),
        ("${file():a}", "expected the path of a file"),
        ("x${self:custom}", "expected a string or a number, got a mapping"),
        ("x${self:a, null}", "expected a string or a number, got nothing"),
        ("${self:custom.name", "expected a closing }"),
        ("${self:custom.x}", "refers to itself: custom.x → custom.y → custom.x"),
        ("${self:custom.all}", "refers to itself"),
        ("${file(./loop.yml):a}", "again and again"),
        ("${file(./nest.yml)}", "again and again"),
        ("${file(./broken.yml):a}", "broken.yml:1: the YAML cannot be read"),
        ("${file(./inner.yml):a}", "inner.yml:2: ${env:INNER} has no value"),
    ],
)
def test_a_variable_without_a_value_is_said_with_its_place(tmp_path: Path, written: str, said: str) -> None:
    """The error names the file, the line, the variable and what is missing."""
    custom = "custom: {name: n, x: '${self:custom.y}', y: '${self:custom.x}', all: '${self:custom}'}\n"
    files = {
        "loop_yml": "a: ${file(./loop.yml):a}",
        "nest_yml": "a: ${file(./nest.yml)}",
        "broken_yml": "a: [",
        "inner_yml": "\na: ${env:INNER}",
    }
    if "custom}" in written or "custom.all" in written:
        custom = custom.replace("x: '${self:custom.y}', y: '${self:custom.x}', ", "")
    text = fault(
        tmp_path,
        f'"{written}"',
        custom.replace("all: '${self:custom}'", "b: 1") if "x$" in written else custom,
        **files,
    )
    assert said in text
    assert text.startswith(str(tmp_path))


def test_all_variables_without_a_value_are_said_at_once(tmp_path: Path) -> None:
    """One does not have to start again for each."""
    text = f"{FUNCTION}      A: ${{env:A}}\n      B: ${{env:B}}\n  other:\n    handler: ${{env:C}}\n"
    with pytest.raises(TemplateError) as raised:
        compiled(tmp_path, text)
    said = str(raised.value).splitlines()
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in said] == ["11", "12", "14"]


def test_what_does_not_matter_here_needs_no_value(tmp_path: Path) -> None:
    """Variables of roles, networks and buckets for deploying are not looked up."""
    head = """
service: chat
provider:
  name: aws
  iam: {role: "${ssm:/role}"}
  vpc: {subnetIds: "${cf:network.Subnets}"}
  deploymentBucket: ${ssm:/bucket}
custom:
  customDomain: ${ssm:/domain}
package:
  patterns: ["${ssm:/pattern}"]
"""
    assert compiled(tmp_path, "functions: {hello: {handler: app.handler, vpc: '${ssm:/vpc}'}}", head=head).code


def test_dotenv_files_are_read_where_the_framework_would(tmp_path: Path) -> None:
    """From version 4 on always; before it where the service says so; the environment's own values come first."""
    written = "${env:A}-${env:B, 'none'}-${env:C}"
    dotenv = {"A": "1", "C": "given"}
    (tmp_path / ".env").write_text("A=file\nB=2\nC=file\n")
    assert value(tmp_path, written, environment=dotenv) == "1-2-given"
    assert value(tmp_path, written, "frameworkVersion: '3'\n", environment=dotenv) == "1-none-given"
    assert value(tmp_path, written, "frameworkVersion: '>=3'\n", environment=dotenv) == "1-2-given"
    assert value(tmp_path, written, "frameworkVersion: ^3.1\nuseDotenv: true\n", environment=dotenv) == "1-2-given"
    assert value(tmp_path, written, "frameworkVersion: '4'\nuseDotenv: false\n", environment=dotenv) == "1-none-given"


def test_the_stages_dotenv_file_comes_before_the_other(tmp_path: Path) -> None:
    """Version 4 reads both; version 3 the stage's alone."""
    (tmp_path / ".env").write_text("A=all\nB=all\n")
    (tmp_path / ".env.dev").write_text("A=dev\n")
    written = "${env:A}-${env:B, 'none'}"
    assert value(tmp_path, written) == "dev-all"
    assert value(tmp_path, written, "frameworkVersion: '3'\nuseDotenv: true\n") == "dev-none"
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".env").write_text("A=shared\nC=shared\n")
    assert value(tmp_path, "${env:A}-${env:C}", "useDotenv: ./shared\n") == "dev-shared"


def test_dotenv_files_have_quotes_comments_and_references(tmp_path: Path) -> None:
    """They are read as the packages dotenv and dotenv-expand read them."""
    (tmp_path / ".env").write_text(
        "# a comment\nexport A = 'one # two' # three\nB=\"x\\ny\"\n"
        "C=${A}/$D/${D:-else}/${A:+set}/\\$A\nE=plain # rest\nF: colon\n"
    )
    for name, expected in {
        "A": "one # two",
        "B": "x\ny",
        "C": "one # two//else/set/$A",
        "E": "plain",
        "F": "colon",
    }.items():
        assert value(tmp_path, f"${{env:{name}}}") == expected


def test_the_processs_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless another is given, variables see the environment that runs this."""
    monkeypatch.setenv("HUBBUB_TEST_NAME", "from-the-process")
    path = write_service(tmp_path, "service: ${env:HUBBUB_TEST_NAME}\nprovider: {name: aws}\n")
    assert compile_serverless(path).stack_name == "from-the-process-dev"
