"""Functions and layers have the properties the framework gives them, and their code is where it runs from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.emulator.template.errors import TemplateError
from servicelab import compiled, named, properties


def test_a_function_has_the_frameworks_defaults(tmp_path: Path) -> None:
    """1024 MB and 6 s, whatever Lambda's own defaults are; the name is made of service, stage and function."""
    service = compiled(tmp_path, "functions: {hello-world_2: {handler: src/app.handler}}")
    logical_id = "HelloDashworldUnderscore2LambdaFunction"
    function = properties(service, logical_id)
    assert {key: function[key] for key in ("FunctionName", "Handler", "Runtime", "MemorySize", "Timeout")} == {
        "FunctionName": "chat-dev-hello-world_2",
        "Handler": "src/app.handler",
        "Runtime": "python3.12",
        "MemorySize": 1024,
        "Timeout": 6,
    }
    assert service.code == {logical_id: tmp_path}


def test_a_functions_own_properties_come_before_the_providers(tmp_path: Path) -> None:
    """The provider's are for all functions that say nothing else."""
    head = """
service: chat
provider:
  name: aws
  runtime: python3.11
  memorySize: 256
  timeout: ${opt:timeout, '20'}
  environment: {A: provider, B: provider, C: null, D: true, E: 1.5}
  layers: [one]
"""
    service = compiled(
        tmp_path,
        """
        functions:
          a: {handler: app.a}
          b:
            handler: app.b
            name: bee
            runtime: python3.13
            memorySize: 512
            timeout: 3
            environment: {B: own}
            layers: [two]
            reservedConcurrency: 0
            architecture: arm64
            condition: Big
            dependsOn: Table
        """,
        head=head,
    )
    a, b = properties(service, "ALambdaFunction"), properties(service, "BLambdaFunction")
    assert (a["Runtime"], a["MemorySize"], a["Timeout"], a["Layers"]) == ("python3.11", 256, 20, ["one"])
    assert a["Environment"]["Variables"] == {"A": "provider", "B": "provider", "D": "true", "E": "1.5"}
    assert (b["FunctionName"], b["Runtime"], b["MemorySize"], b["Timeout"]) == ("bee", "python3.13", 512, 3)
    assert b["Environment"]["Variables"]["B"] == "own"
    assert (b["Layers"], b["ReservedConcurrentExecutions"], b["Architectures"]) == (["two"], 0, ["arm64"])
    resource = service.template["Resources"]["BLambdaFunction"]
    assert (resource["Condition"], resource["DependsOn"]) == ("Big", ["BLogGroup", "Table"])


def test_functions_may_be_a_list_with_other_files_in_it(tmp_path: Path) -> None:
    """Lists are put together; what is null is no function."""
    service = compiled(
        tmp_path,
        """
        functions:
          - ${file(./more.yml)}
          - b: {timeout: 9}
          - c: null
        """,
        more_yml="a: {handler: app.a}\nb: {handler: app.b, timeout: 1}\n",
    )
    assert set(service.code) == {"ALambdaFunction", "BLambdaFunction"}
    assert properties(service, "BLambdaFunction")["Timeout"] == 9


def test_outcomes_of_events_go_where_the_function_says(tmp_path: Path) -> None:
    """Destinations are functions, ARNs or typed; retries and ages are kept, zero too."""
    service = compiled(
        tmp_path,
        """
        functions:
          a:
            handler: app.a
            maximumRetryAttempts: 0
            maximumEventAge: 60
            onError: !Ref Topic
            destinations:
              onSuccess: b
              onFailure: {type: sqs, arn: !GetAtt Queue.Arn}
          b: {handler: app.b, destinations: {onFailure: "arn:aws:sqs:us-east-1:123456789012:q"}}
        """,
    )
    assert properties(service, "ALambdaEvConf") == {
        "FunctionName": {"Ref": "ALambdaFunction"},
        "DestinationConfig": {
            "OnSuccess": {"Destination": {"Fn::GetAtt": ["BLambdaFunction", "Arn"]}},
            "OnFailure": {"Destination": {"Fn::GetAtt": ["Queue", "Arn"]}},
        },
        "Qualifier": "$LATEST",
        "MaximumEventAgeInSeconds": 60,
        "MaximumRetryAttempts": 0,
    }
    assert properties(service, "ALambdaFunction")["DeadLetterConfig"] == {"TargetArn": {"Ref": "Topic"}}
    assert properties(service, "BLambdaEvConf")["DestinationConfig"]["OnFailure"]["Destination"].endswith(":q")


def test_layers_are_folders_that_functions_refer_to(tmp_path: Path) -> None:
    """A layer's folder is its code; the layer that a plugin would make of requirements is left out."""
    service = compiled(
        tmp_path,
        """
        plugins: [serverless-python-requirements]
        layers:
          my-libs: {path: layer, name: libs}
        functions:
          a: {handler: app.a, layers: [!Ref MyDashlibsLambdaLayer, !Ref PythonRequirementsLambdaLayer]}
        """,
        layer__python__lib_py="",
    )
    assert properties(service, "MyDashlibsLambdaLayer")["LayerName"] == "libs"
    assert service.code["MyDashlibsLambdaLayer"] == tmp_path / "layer"
    assert properties(service, "ALambdaFunction")["Layers"] == [{"Ref": "MyDashlibsLambdaLayer"}]


def test_an_image_is_handed_on_as_one(tmp_path: Path) -> None:
    """A function of an image is CloudFormation's, with no code of ours."""
    service = compiled(tmp_path, "functions: {a: {image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/a:1}}")
    function = properties(service, "ALambdaFunction")
    assert (function["PackageType"], function["Code"]["ImageUri"][-3:]) == ("Image", "a:1")
    assert not service.code


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("functions: 5", 6, "expected a mapping as functions, got 5"),
        ("functions: [5]", 6, "expected a mapping as an item of functions, got 5"),
        ("functions:\n  a: 5", 7, "expected a mapping as functions.a, got 5"),
        ("functions:\n  a: {timeout: 1}", 7, "expected a handler or an image in the function, got neither"),
        ("functions:\n  a: {handler: x, image: y}", 7, "got both"),
        ("functions:\n  a:\n    handler: [x]", 8, "expected a string as handler, got a list"),
        ("functions:\n  a:\n    handler: x\n    timeout: soon", 9, "expected a whole number as timeout, got 'soon'"),
        ("functions:\n  a:\n    handler: x\n    environment: 5", 9, "expected a mapping as environment, got 5"),
        ("functions:\n  a:\n    handler: x\n    events: 5", 9, "expected a list as events, got 5"),
        ("functions:\n  a:\n    handler: x\n    events: [5]", 9, "expected a mapping as an event, got 5"),
        ("functions:\n  a: {handler: x, destinations: {onFailure: nobody}}", 7, "got 'nobody'"),
        ("layers:\n  a: {name: x}", 7, "expected a path in the layer a, got none"),
        ("layers:\n  a: {path: absent}", 7, "there is no absent, which is the path of the layer a"),
        ("resources: 5", 6, "expected a mapping as resources, got 5"),
        ("resources: {Resources: {A: 5}}", 6, "expected a mapping as the resource A, got 5"),
    ],
)
def test_what_is_not_as_it_should_be_is_said_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    """A mistake is said with the file, the line, what was expected and what came."""
    with pytest.raises(TemplateError, match=what) as raised:
        compiled(tmp_path, text)
    assert (raised.value.path, raised.value.line) == (tmp_path / "serverless.yml", line)


NODE = "service: chat\nprovider: {name: aws, runtime: nodejs20.x}\n"


@pytest.mark.parametrize(
    ("plugin", "folder"),
    [
        ("serverless-esbuild", ".esbuild/.build"),
        ("serverless-webpack", ".webpack/service"),
        ("serverless-plugin-typescript", ".build"),
        ("serverless-offline", ".serverless/build"),
    ],
)
def test_typescript_has_to_be_built_and_runs_from_where_it_was_built_to(
    tmp_path: Path, plugin: str, folder: str
) -> None:
    """What is not built is named with the command; once it is built, its folder is the code."""
    text = f"plugins: [{plugin}]\nfunctions: {{a: {{handler: src/a.handler}}, b: {{handler: src/b.handler}}}}\n"
    sources = {"src__a_ts": "", "src__b_ts": ""}
    service = compiled(tmp_path, text, head=NODE, **sources)
    meaning = named(service)["ALambdaFunction AWS::Lambda::Function"]
    assert meaning.startswith("src/a.ts has to be built")
    assert folder in meaning
    assert "tsc" in meaning or "src/a.ts src/b.ts --bundle" in meaning
    assert service.code["ALambdaFunction"] == tmp_path
    for name in "ab":
        built = tmp_path / folder / "src" / f"{name}.js"
        built.parent.mkdir(parents=True, exist_ok=True)
        built.write_text("")
    service = compiled(tmp_path, text, head=NODE, **sources)
    assert service.code["ALambdaFunction"] == tmp_path / folder
    assert "ALambdaFunction AWS::Lambda::Function" not in named(service)


MODULE = "import x from './x';\nexport const handler = x;\n"


@pytest.mark.parametrize(
    ("files", "is_named"),
    [
        ({"src__a_mjs": MODULE}, False),
        ({"src__a_js": "exports.handler = 1"}, False),
        ({"src__a_js": MODULE}, True),
        ({"src__a_js": MODULE, "package_json": '{"type": "module"}'}, False),
        ({"src__a_js": MODULE, "package_json": "[]"}, True),
        ({"src__a_jsx": ""}, True),
    ],
)
def test_javascript_runs_as_it_is_unless_only_a_bundler_understands_it(
    tmp_path: Path, files: dict[str, str], is_named: bool
) -> None:
    """Nothing is built for what Node.js runs itself; modules that are no modules to it are named."""
    text = "plugins: [serverless-bundle]\nfunctions: {a: {handler: src/a.handler}}\n"
    service = compiled(tmp_path, text, head=NODE, **files)
    assert service.code == {"ALambdaFunction": tmp_path}
    assert ("ALambdaFunction AWS::Lambda::Function" in named(service)) == is_named
    text = text.replace("serverless-bundle", "serverless-offline")
    is_typed = "src__a_jsx" in files
    assert ("ALambdaFunction AWS::Lambda::Function" in named(compiled(tmp_path, text, head=NODE))) == is_typed


def test_what_was_packaged_by_other_means_is_the_code(tmp_path: Path) -> None:
    """An artifact comes before the folder; with python-requirements a module is the folder."""
    service = compiled(
        tmp_path,
        """
        package: {artifact: all.zip}
        functions:
          a: {handler: app.a, package: {artifact: build/a.zip}}
          b: {handler: app.b}
        """,
        all_zip="",
        build__a_zip="",
    )
    assert service.code == {"ALambdaFunction": tmp_path / "build/a.zip", "BLambdaFunction": tmp_path / "all.zip"}
    service = compiled(tmp_path, "functions: {a: {handler: app.a, module: one}}", one__app_py="")
    assert service.code == {"ALambdaFunction": tmp_path / "one"}


def test_what_was_not_packaged_runs_from_the_folder(tmp_path: Path) -> None:
    """An artifact that a script has still to make is named, and the handler looked for where it was written."""
    service = compiled(tmp_path, "functions: {a: {handler: app.a, package: {artifact: build/a.zip}}}")
    assert service.code == {"ALambdaFunction": tmp_path}
    assert "there is no build/a.zip" in named(service)["ALambdaFunction package.artifact"]


def test_the_dotenv_plugin_gives_functions_their_files(tmp_path: Path) -> None:
    """What is in the `.env` files is in every function's environment, unless the service says otherwise."""
    (tmp_path / ".env").write_text("A=all\nB=all\nC=all\n")
    (tmp_path / ".env.dev").write_text("B=dev\n")
    text = "plugins: [serverless-dotenv-plugin]\nfunctions: {a: {handler: app.a, environment: {C: own}}}\n"
    environment = properties(compiled(tmp_path, text), "ALambdaFunction")["Environment"]["Variables"]
    assert environment == {"A": "all", "B": "dev", "C": "own"}
    text += "custom: {dotenv: {exclude: [A]}}\n"
    environment = properties(compiled(tmp_path, text), "ALambdaFunction")["Environment"]["Variables"]
    assert environment == {"B": "dev", "C": "own"}
