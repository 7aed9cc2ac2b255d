from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from hubbub.emulator.definition import Surroundings
from hubbub.emulator.template import TemplateError, stack_from_template
from templatelab import SAM, TEMPLATES, failure_of, function_of, loaded, meaning_of, stack_of

FUNCTION = "Type: AWS::Lambda::Function\n    Properties:\n      Runtime: python3.12\n      Handler: app.handler\n"


def plain(more: str = "", *, code: str = "Code: src", name: str = "F") -> str:
    """A plain function's declaration, to stand below Resources."""
    lines = [line for line in (code, *more.splitlines()) if line]
    return f"  {name}:\n    {FUNCTION}" + "".join(f"      {line}\n" for line in lines)


def archive(**files: str) -> bytes:
    """A zip archive; `bootstrap` is executable in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, text in files.items():
            item = zipfile.ZipInfo(name)
            item.external_attr = (0o755 if name == "bootstrap" else 0o644) << 16
            opened.writestr(item, text)
    return made.getvalue()


def test_a_function_has_what_its_properties_say(tmp_path: Path) -> None:
    """Limits, variables, retries and destinations of a function are those of its template, as Lambda has them."""
    text = "Resources:\n" + plain(
        "MemorySize: 512\nTimeout: '30'\nReservedConcurrentExecutions: 0\n"
        "Environment: {Variables: {A: text, B: 5, C: true, D: !Ref AWS::NoValue, E: 1.5}}\n"
        "DeadLetterConfig: {TargetArn: !GetAtt Q.Arn}"
    )
    text += """\
  Q: {Type: AWS::SQS::Queue}
  Config:
    Type: AWS::Lambda::EventInvokeConfig
    Properties:
      FunctionName: !Ref F
      Qualifier: $LATEST
      MaximumRetryAttempts: 0
      MaximumEventAgeInSeconds: 60
      DestinationConfig:
        OnFailure: {Destination: !GetAtt Q.Arn}
        OnSuccess: {Destination: "arn:aws:sns:us-east-1:123456789012:done"}
"""
    function = function_of(stack_of(tmp_path, text), "F")
    queue = "arn:aws:sqs:us-east-1:123456789012:local-Q"
    assert (function.name, function.runtime, function.handler) == ("local-F", "python3.12", "app.handler")
    assert function.code == tmp_path / "src"
    assert function.environment == {"A": "text", "B": "5", "C": "true", "E": "1.5"}
    assert (function.memory_mb, function.timeout_s, function.reserved_concurrency) == (512, 30.0, 0)
    assert (function.max_retries, function.max_age_s) == (0, 60)
    assert (function.dead_letter, function.on_failure) == (queue, queue)
    assert function.on_success == "arn:aws:sns:us-east-1:123456789012:done"


def test_what_a_template_leaves_open_is_lambdas_default(tmp_path: Path) -> None:
    """A function with nothing but code has Lambda's own limits."""
    function = function_of(stack_of(tmp_path, "Resources:\n" + plain()), "F")
    assert (function.memory_mb, function.timeout_s, function.reserved_concurrency) == (128, 3.0, None)
    assert (function.max_retries, function.max_age_s, function.environment) == (2, 21_600, {})


def test_inline_code_is_written_where_the_caller_says(tmp_path: Path) -> None:
    """Code in the template becomes index.py or index.js below the work folder, and is written only when it changed."""
    text = "Resources:\n" + plain(code="Code: {ZipFile: 'x = 1'}").replace("app.handler", "index.handler")
    text += plain(code="Code: {ZipFile: 'exports.x = 1'}", name="N").replace("python3.12", "nodejs22.x")
    stack = stack_of(tmp_path, text)
    python, node = function_of(stack, "F").code, function_of(stack, "N").code
    assert python.is_relative_to(tmp_path / "work")
    assert [(path.name, path.read_text()) for path in python.iterdir()] == [("index.py", "x = 1")]
    assert [(path.name, path.read_text()) for path in node.iterdir()] == [("index.js", "exports.x = 1")]
    before = (python / "index.py").stat().st_mtime_ns
    again = stack_of(tmp_path, text)
    assert function_of(again, "F").code == python
    assert (python / "index.py").stat().st_mtime_ns == before
    stack_of(tmp_path, text.replace("x = 1'}", "x = 2'}", 1))
    assert (python / "index.py").read_text() == "x = 2"


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    """A zip archive is a folder below the work folder, with what was executable in it."""
    (tmp_path / "f.zip").write_bytes(archive(bootstrap="#!/bin/sh\n", data="x"))
    stack = stack_of(tmp_path, "Resources:\n" + plain(code="Code: f.zip").replace("python3.12", "provided.al2023"))
    folder = function_of(stack, "F").code
    assert folder.is_relative_to(tmp_path / "work")
    assert sorted(path.name for path in folder.iterdir()) == ["bootstrap", "data"]
    assert (folder / "bootstrap").stat().st_mode & stat.S_IXUSR
    assert not (folder / "data").stat().st_mode & stat.S_IXUSR
    (tmp_path / "f.zip").write_bytes(archive(bootstrap="#!/bin/sh\n", data="y"))
    changed = stack_of(tmp_path, "Resources:\n" + plain(code="Code: f.zip"))
    assert (function_of(changed, "F").code / "data").read_text() == "y"


def test_an_archive_stays_in_its_folder(tmp_path: Path) -> None:
    """Names in an archive that lead out of it do not."""
    (tmp_path / "f.zip").write_bytes(archive(**{"../../escaped": "x", "/absolute": "y"}))
    folder = function_of(stack_of(tmp_path, "Resources:\n" + plain(code="Code: f.zip")), "F").code
    assert sorted(path.name for path in folder.iterdir()) == ["absolute", "escaped"]
    assert not (tmp_path / "escaped").exists()


def test_an_archive_that_is_none_is_an_error(tmp_path: Path) -> None:
    """A file with the name of an archive and other content is an error at its line."""
    (tmp_path / "f.zip").write_bytes(b"no zip")
    failure = failure_of(tmp_path, "Resources:\n" + plain(code="Code: f.zip"))
    assert "expected a zip archive" in failure.what
    assert failure.line == 7


def test_a_single_file_is_a_folder_with_it(tmp_path: Path) -> None:
    """Code that is one file is a folder with that file, where changes of it are seen."""
    (tmp_path / "app.py").write_text("x = 1")
    code = function_of(stack_of(tmp_path, "Resources:\n" + plain(code="Code: app.py")), "F").code
    (tmp_path / "app.py").write_text("x = 2")
    assert [path.name for path in code.iterdir()] == ["app.py"]
    assert (code / "app.py").read_text() == "x = 2"


def test_code_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path that leads nowhere is an error at its line, in SAM and in plain templates."""
    failure = failure_of(tmp_path, "Resources:\n" + plain(code="Code: nowhere"))
    assert (failure.line, "there is no " in failure.what) == (7, True)
    sam = SAM + "Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties:\n"
    sam += "      Runtime: python3.12\n      Handler: a.b\n      CodeUri: nowhere\n"
    failure = failure_of(tmp_path, sam)
    assert (failure.line, "F: expected a folder or an archive" in failure.what) == (8, True)


def test_a_function_without_code_is_that_of_the_templates_folder(tmp_path: Path) -> None:
    """As `aws cloudformation package` and `sam build` have it, no code means the folder of the template."""
    assert function_of(stack_of(tmp_path, "Resources:\n" + plain(code="")), "F").code == tmp_path
    sam = SAM + "Resources: {F: {Type: AWS::Serverless::Function, Properties: {Runtime: python3.12, Handler: a.b}}}\n"
    assert function_of(stack_of(tmp_path, sam), "F").code == tmp_path


def test_code_in_s3_is_named_unless_it_is_beside_the_template(tmp_path: Path) -> None:
    """Code in a bucket is not here: the function is left out and named; an archive of that name here is taken."""
    text = "Resources:\n" + plain(code="Code: {S3Bucket: artifacts, S3Key: releases/f.zip}")
    stack = stack_of(tmp_path, text)
    assert stack.functions == ()
    assert "its code is in S3 and not here" in meaning_of(stack, "F")
    (tmp_path / "f.zip").write_bytes(archive(data="x"))
    found = stack_of(tmp_path, text)
    assert (function_of(found, "F").code / "data").read_text() == "x"
    assert found.unsupported == ()


def test_a_template_of_the_cdk_leads_to_its_assets(tmp_path: Path) -> None:
    """A synthesised template's code is in the asset that its metadata names, and nothing of it is unsupported."""
    stack = loaded(TEMPLATES / "cdk-out" / "ChatStack.template.json", tmp_path)
    assert [function.code.name for function in stack.functions] == ["asset.3f9c"]
    assert [route.key for route in stack.apis[0].routes] == ["$connect"]
    assert stack.unsupported == ()
    assert stack.ignored == ("HandlerServiceRoleFCDC14AE", "CDKMetadata")


def test_a_caller_may_say_where_code_is(tmp_path: Path) -> None:
    """Folders that the caller gives by logical id win over what the template says."""
    (tmp_path / "elsewhere").mkdir()
    template = {
        "Resources": {
            "F": {
                "Type": "AWS::Lambda::Function",
                "Properties": {"Code": {"S3Bucket": "b", "S3Key": "k"}, "Runtime": "python3.12", "Handler": "a.b"},
            }
        }
    }
    stack = stack_from_template(
        template,
        path=tmp_path / "serverless.yml",
        language="serverless",
        surroundings=Surroundings(),
        work=tmp_path / "work",
        code={"F": tmp_path / "elsewhere"},
        watched=[tmp_path / "other.yml"],
    )
    assert function_of(stack, "F").code == tmp_path / "elsewhere"
    assert (stack.language, stack.watched) == ("serverless", (tmp_path / "serverless.yml", tmp_path / "other.yml"))


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("Type: AWS::Lambda::Function, Properties: {PackageType: Image, Code: {ImageUri: i}}", "container images"),
        ("Type: AWS::Serverless::Function, Properties: {PackageType: Image}", "container images"),
        (
            "Type: AWS::Serverless::Function, Properties: {Runtime: java21, Handler: a.B, CodeUri: target/none.jar}",
            "java21 does not run here",
        ),
    ],
)
def test_functions_that_cannot_run_are_named(tmp_path: Path, declaration: str, said: str) -> None:
    """Container images and runtimes of other languages are left out and named, whether they are built or not."""
    stack = stack_of(tmp_path, f"{SAM}Resources: {{F: {{{declaration}}}}}\n")
    assert stack.functions == ()
    assert said in meaning_of(stack, "F")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("FileSystemConfigs: [{Arn: a, LocalMountPath: /mnt/x}]", "not mounted"),
        ("DurableConfig: {ExecutionTimeout: 60}", "durable executions"),
    ],
)
def test_parts_of_a_function_that_have_no_effect_are_named(tmp_path: Path, more: str, said: str) -> None:
    """A function runs without what there is not here, and that is said."""
    stack = stack_of(tmp_path, "Resources:\n" + plain(more))
    assert len(stack.functions) == 1
    assert said in meaning_of(stack, "F")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (plain().replace("      Handler: app.handler\n", ""), "F: expected a Handler"),
        (plain().replace("      Runtime: python3.12\n", ""), "F: expected a Runtime"),
        (plain("MemorySize: lots"), "F: expected a number as its MemorySize, got 'lots'"),
        (plain("Environment: {Variables: {A: [1]}}"), "F: expected text as its variable A, got [1]"),
        (plain("Environment: {Variables: x}"), "F: expected a mapping as its Variables"),
        (plain("Environment: x"), "F: expected a mapping as its Environment"),
        (plain("FunctionName: [a]"), "F: expected text as its FunctionName"),
        (plain("FunctionName: x") + plain("FunctionName: x", name="G"), "G: expected a name of its own, and 'x'"),
        (plain(code="Code: [a]"), "F: expected a path or a mapping as its Code"),
    ],
)
def test_a_function_that_lambda_would_refuse_is_an_error(tmp_path: Path, text: str, what: str) -> None:
    """What Lambda asks for and what has the wrong shape is an error with the function's logical id."""
    assert what in failure_of(tmp_path, "Resources:\n" + text).what


def test_layers_are_folders_in_their_order(tmp_path: Path) -> None:
    """A function's layers are the folders of those that the template declares, first to last; others are named."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    text = "Resources:\n" + plain(
        "Layers: [!Ref Two, !Ref One, 'arn:aws:lambda:us-east-1:017000801446:layer:Powertools:7']"
    )
    text += "  One: {Type: AWS::Lambda::LayerVersion, Properties: {Content: one}}\n"
    text += "  Two: {Type: AWS::Lambda::LayerVersion, Properties: {Content: two}}\n"
    stack = stack_of(tmp_path, text)
    assert [layer.name for layer in function_of(stack, "F").layers] == ["two", "one"]
    assert "layer:Powertools:7 is not in this template" in meaning_of(stack, "F")


def test_a_layer_in_s3_is_named_once(tmp_path: Path) -> None:
    """A layer whose content is in a bucket is left out, and it is the layer that is named."""
    text = "Resources:\n" + plain("Layers: [!Ref L]")
    text += "  L: {Type: AWS::Lambda::LayerVersion, Properties: {Content: {S3Bucket: b, S3Key: k.zip}}}\n"
    stack = stack_of(tmp_path, text)
    assert function_of(stack, "F").layers == ()
    assert [one.logical_id for one in stack.unsupported] == ["L"]


def sam_function(metadata: str, **properties: str) -> str:
    """A SAM template with one function."""
    lines = "".join(f"      {key}: {value}\n" for key, value in properties.items())
    head = f"{SAM}Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Metadata: {metadata}\n"
    return f"{head}    Properties:\n{lines}"


def test_what_does_not_run_unbuilt_is_taken_from_the_build(tmp_path: Path) -> None:
    """TypeScript and compiled functions are those that `sam build` made; where it was not run, that is said."""
    text = sam_function("{BuildMethod: esbuild}", Runtime="nodejs22.x", Handler="app.handler", CodeUri="src")
    unbuilt = stack_of(tmp_path, text)
    assert "(BuildMethod esbuild) has to be built first: run `sam build`" in meaning_of(unbuilt, "F")
    built = tmp_path / ".aws-sam" / "build" / "F"
    built.mkdir(parents=True)
    stack = stack_of(tmp_path, text)
    assert (function_of(stack, "F").code, stack.unsupported) == (built, ())


def test_what_runs_as_it_is_is_not_taken_from_the_build(tmp_path: Path) -> None:
    """A Python function is its source even where there is a build, so that changes are seen."""
    (tmp_path / ".aws-sam" / "build" / "F").mkdir(parents=True)
    text = sam_function("{BuildMethod: python3.12}", Runtime="python3.12", Handler="app.handler", CodeUri="src")
    assert function_of(stack_of(tmp_path, text), "F").code == tmp_path / "src"
    (tmp_path / "src" / "app.js").write_text("")
    text = sam_function("{BuildMethod: esbuild}", Runtime="nodejs22.x", Handler="app.handler", CodeUri="src")
    assert function_of(stack_of(tmp_path, text), "F").code == tmp_path / "src"


def test_an_executable_runs_where_it_is(tmp_path: Path) -> None:
    """A custom runtime with its bootstrap in the folder needs no build."""
    text = sam_function("{BuildMethod: makefile}", Runtime="provided.al2023", Handler="x", CodeUri="src")
    assert "has to be built first" in meaning_of(stack_of(tmp_path, text), "F")
    (tmp_path / "src" / "bootstrap").write_text("")
    assert stack_of(tmp_path, text).unsupported == ()


def test_a_layer_with_a_build_method_is_arranged_as_in_opt(tmp_path: Path) -> None:
    """The modules of a layer that SAM would build are found under python/, as they would be in /opt."""
    stack = loaded(TEMPLATES / "sam-chat", tmp_path)
    (layer,) = function_of(stack, "ConnectFunction").layers
    assert (layer / "python" / "shared.py").is_file()


def test_the_build_itself_can_be_loaded(tmp_path: Path) -> None:
    """The template that `sam build` leaves is one of its own, with its folders beside it."""
    build = tmp_path / ".aws-sam" / "build"
    (build / "F").mkdir(parents=True)
    text = sam_function("{SamResourceId: F}", Runtime="python3.12", Handler="app.handler", CodeUri="F")
    (build / "template.yaml").write_text(text)
    assert function_of(loaded(build / "template.yaml", tmp_path), "F").code == build / "F"


def test_an_error_says_what_it_is_about(tmp_path: Path) -> None:
    """Errors are one line: file, line, logical id, what was expected and what came."""
    with pytest.raises(TemplateError) as failure:
        stack_of(tmp_path, "Resources:\n" + plain("Timeout: soon"))
    assert str(failure.value) == f"{tmp_path}/template.yaml:8: F: expected a number as its Timeout, got 'soon'"
