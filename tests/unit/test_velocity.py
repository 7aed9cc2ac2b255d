"""The Velocity Template Language: what templates make, and what is wrong with those that cannot be read."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.gateway.integrations.velocity import TemplateError, Tool, parse, render, text_of

DOCUMENT: dict[str, Any] = {
    "name": 'it\'s "Ann"',
    "n": 7,
    "f": 1.5,
    "yes": True,
    "no": False,
    "none": None,
    "empty": "",
    "zero": 0,
    "list": [1, True, None, {"x": "y"}],
    "nothing": [],
    "map": {"a": 1, "b": [{"c": 5}], "d-e": "dash"},
    "csv": "a,b,,",
}


def rendered(template: str, **variables: Any) -> str:
    """What a template makes of a document of many kinds."""
    return render(parse(template), {"d": json.loads(json.dumps(DOCUMENT)), **variables})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            'plain $ text # with 5$ and $5.00, a&b, {"a": [1]} \\ \\"',
            'plain $ text # with 5$ and $5.00, a&b, {"a": [1]} \\ \\"',
        ),
        ("$d.n ${d.n} $!d.n $!{d.n}x", "7 7 7 7x"),
        ("$d.f $d.yes $d.no", "1.5 true false"),
        ("[$missing][$d.none][$d.missing.deeper][$!missing][$d.n.missing]", "[][][][][]"),
        ("$d.name.", 'it\'s "Ann".'),
        ("$d.map", '{a=1, b=[{"c":5}], d-e=dash}'),
        ("$d.list", '[1,true,null,{"x":"y"}]'),
        ("$d.map.b[0]", "{c=5}"),
        ("$d.map.d-e", "dash"),
        ("$d['map']['a']$d.map[\"a\"]$d.list[0]$d.list[-1].x", "111y"),
        ("$d.list[9]$d.list['x']$d.n[0]", ""),
        ("$d.list [0]", '[1,true,null,{"x":"y"}] [0]'),
        ("$$d.n", "$7"),
        (r"\$d.n \\$d.n \\\$d.n \x", r"$d.n \7 \$d.n \x"),
        (r"\#if(true) \#end", "#if(true) #end"),
        ("a#$d.n #fff #abc() ##gone", "a#7 #fff #abc() "),
        ("a ## gone\nb", "a b"),
        ("a#* gone\n$d.n *#b", "ab"),
        ("#[[$d.n #if]]#", "$d.n #if"),
    ],
)
def test_text_and_references_are_written(template: str, text: str) -> None:
    """Text is itself, a reference is its value as Java writes it, and what there is not is nothing."""
    assert rendered(template) == text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7.0 / 2", "3.5"),
        ("7.5 % 2", "1.5"),
        ("1 / 0", ""),
        ("1.5 / 0", ""),
        ("$d.n - 1", "6"),
        ("$d.n -1", "6"),
        ("$d.n + 86400", "86407"),
        ("'a' + 1 + $d.yes", "a1true"),
        ("1 + $missing", ""),
        ("9223372036854775807 + 1", "-9223372036854775808"),
        ("5.0", "5.0"),
        ("1.0E10 * 1", "1.0E10"),
        ("12345678.9 * 1", "1.23456789E7"),
        ("-0.00012", "-1.2E-4"),
        ("1e3", "1000.0"),
        ("true && false || true", "true"),
        ("true and not false", "true"),
        ("false or false", "false"),
        ("1 == 1.0", "true"),
        ("1 == true", "false"),
        ("'1' == 1", "true"),
        ("'a' eq 'a'", "true"),
        ("'a' != 'b'", "true"),
        ("'a' ne 'a'", "false"),
        ("1 < 2", "true"),
        ("2 le 2", "true"),
        ("3 gt 2", "true"),
        ("1 >= 2", "false"),
        ("'b' > 'a'", "false"),
        ("$missing > 0", "false"),
        ("!$missing", "true"),
        ("$missing == $null", "true"),
        ("$missing == ''", "true"),
        ("$missing != ''", "false"),
        ("$d.nothing == ''", "false"),
        ("$d.map == {'a': 1}", "false"),
        ("[1, 'a', [2]]", "[1, a, [2]]"),
        ("[]", "[]"),
        ("[1..'a']", ""),
        ("{'a': 1, \"b\": {}}", "{a=1, b={}}"),
        ("[1..3]", "[1, 2, 3]"),
        ("'single $d.n'", "single $d.n"),
        ('"double $d.n ${d.n}th"', "double 7 7th"),
        ('"#if($d.yes)in#{else}out#end"', "in"),
        ("'it''s'", "it's"),
        ('"say ""hi"""', 'say "hi"'),
        (r'"\n\t\\"', r"\n\t\\"),
        (r'"\u0041\u00e9"', "Aé"),
        ('"$"', "$"),
        ('"$.list[${d.n}]"', "$.list[7]"),
        ("null", ""),
    ],
)
def test_expressions_are_worked_out_as_java_does(expression: str, text: str) -> None:
    """Numbers, strings, comparisons, lists, maps; null and the empty string are equal, as on AWS."""
    assert rendered(f"#set($x = {expression})$x") == text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (r"""$d.name.replaceAll("'", "\\'")""", r"""it\'s "Ann" """.strip()),
        (r"""$x.replaceAll("\\'","'")""", "it's"),
        (r"""$d.csv.replaceAll("(\w),(\w)", "$2-$1")""", "b-a,,"),
        ("$d.csv.replaceFirst(',', ';')", "a;b,,"),
        ("$d.csv.replace(',', '')", "ab"),
        ("$d.csv.split(',')", "[a, b]"),
        ("$d.csv.split(',').size()", "2"),
        ("$d.csv.split(',', 2)[1]", "b,,"),
        ("$d.csv.length()", "5"),
        ("$d.csv.substring(2)$d.csv.substring(0, 1)", "b,,a"),
        ("$d.csv.indexOf('b')$d.csv.indexOf('z')$d.csv.lastIndexOf(',')", "2-14"),
        ("$d.csv.contains('b')$d.csv.startsWith('a')$d.csv.endsWith('a')", "truetruefalse"),
        ("$d.csv.matches('[ab,]+')$d.csv.matches('a')", "truefalse"),
        ("$d.csv.toUpperCase()$d.csv.toUpperCase().toLowerCase()", "A,B,,a,b,,"),
        ("#set($y = '  a ')[$y.trim()][$y.isEmpty()]", "[a][false]"),
        ("$d.csv.equals('a')$d.csv.equalsIgnoreCase('A,B,,')$d.csv.concat('!')$d.csv.charAt(2)", "falsetruea,b,,!b"),
        ("$d.empty.isEmpty()$d.empty.length()$d.nothing.empty$d.map.empty", "true0truefalse"),
        ("$d.list.size()$d.list.count()$d.list.get(0)$d.list.isEmpty()$d.list.contains(1)", "441falsetrue"),
        (
            "#set($l = [])$l.add('a')$l.add('b')$l.addAll(['c'])$l$l.indexOf('b')$l.subList(1, 3)",
            "truetruetrue[a, b, c]1[b, c]",
        ),
        ("#set($l = [1, 2])$l.set(0, 3)$l.remove(1)$l", "12[3]"),
        (
            "$d.map.size()$d.map.containsKey('a')$d.map.containsKey('z')$d.map.get('a')$d.map.keySet()",
            "3truefalse1[a, b, d-e]",
        ),
        ("#set($m = {})$m.put('a', 1)$m.put('a', 2)$m$m.remove('a')$m.isEmpty()", "1{a=2}2true"),
        ("$d.map.getOrDefault('z', 'other')$d.map.values().size()", "other3"),
        ("$d.map.toString()$d.n.toString().length()", '{a=1, b=[{"c":5}], d-e=dash}1'),
        ("#set($Integer = 0)#set($n = $Integer.parseInt('41') + 1)$n", "42"),
        ("$d.f.intValue()", "1"),
        ("$d.name.getClass()$d.name.__class__$d.name.format('x')$d.name.substring('x')$d.name.length(1)", ""),
        ("$missing.size()$d.none.toString()", ""),
    ],
)
def test_values_have_javas_methods(call: str, text: str) -> None:
    """Strings, lists, maps and numbers have the methods that templates call; a method that there is not is nothing."""
    assert rendered(call, x=r"it\'s") == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("#if($d.yes)a#elseif($d.n)b#{else}c#end", "a"),
        ("#if($d.no)a#elseif($d.n)b#{else}c#end", "b"),
        ("#if($d.none)a#elseif($missing)b#{else}c#end", "c"),
        ('#if( $d.none == $null )"true"#else"false"#end', '"true"'),
        ("#if($d.empty)a#end#if($d.zero)b#end#if($d.nothing)c#end", "abc"),
        ("#{if}($d.yes)a#{end}b", "ab"),
        ("#if ($d.yes && ($d.n > 6))\n  a\n#else\n  b\n#end\nc", "  a\nc"),
        (
            "#foreach($i in $d.list)$foreach.count:$foreach.index:$i#if($foreach.hasNext),#end#end",
            "1:0:1,2:1:true,3:2:,4:3:{x=y}",
        ),
        ("#foreach($i in [1..3])$i#if($foreach.hasNext()), #end#end", "1, 2, 3"),
        ("#foreach($i in [3..1])$velocityCount$i#end", "132231"),
        ("#foreach($v in $d.map)$v;#end", '1;[{"c":5}];dash;'),
        ("#foreach($e in $d.map.entrySet())$e.key=$e.getValue();#end", 'a=1;b=[{"c":5}];d-e=dash;'),
        ("#foreach($i in $missing)a#end#foreach($i in 5)a#end#foreach($i in 'abc')a#end", ""),
        ("#foreach($i in [1, 2])#foreach($j in ['a'])$foreach.parent.count$j#end$foreach.last#end", "1afalse2atrue"),
        ("#foreach($i in [1..9])#if($i == 3)#break#end$i#end!", "12!"),
        ("#set($i = 'kept')#foreach($i in [1])$i#end$i$foreach", "1kept"),
        ("#set($total = 0)#foreach($i in [1, 2])#set($total = $total + $i)#end$total", "3"),
        ("a#stop b", "a"),
        ("a#break b", "a"),
        ("#define($hello)hello $who#end#set($who = 'ann')$hello, $hello.length()", "hello ann, 9"),
        ("a  #set($x = 1)  \n b", "a b"),
        ("#set($d.map.new = 1)#set($d.map['k'] = 2)#set($d.list[0] = 3)$d.map.new$d.map.k$d.list[0]", "123"),
        ("#set($d['map'].b[0].c = 6)$d.map.b", '[{"c":6}]'),
        ("#set($d.n.x = 1)#set($missing.x = 1)$d.n$missing", "7"),
        ("#set($x = 1)#set($x = $missing)[$x]", "[]"),
    ],
)
def test_directives_do_what_velocity_says(template: str, text: str) -> None:
    """#if, #foreach, #set, #define, #break and #stop; all but false and null is true, as in Velocity 1.7."""
    assert rendered(template) == text


def test_a_loop_goes_round_a_thousand_times_at_most() -> None:
    """What comes after the thousandth item is left out, and the thousandth is the last."""
    text = rendered("#foreach($i in [1..5000])$i#if($foreach.hasNext),#end#end")
    assert text == ",".join(map(str, range(1, 1_001)))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("\n\n#if($x)a", "line 3: #if has no #end"),
        ("#foreach($x in [1])\n", "line 1: #foreach has no #end"),
        ("a\n#end", "line 2: #end without"),
        ("#foreach($x in [1])a#{else}b#end", "line 1: #else does not belong to #foreach"),
        ("#set($x = )", "line 1: expected a value, at ')'"),
        ("#set(x = 1)", "line 1: expected a reference such as $name, at 'x = 1)'"),
        ("#set($x 1)", "line 1: expected =, at '1)'"),
        ("#if($x\n == 1 a)#end", "line 2: expected ), at 'a)#end'"),
        ("${d.n", "line 1: expected }, at the end"),
        ("$d.foo(1 2)", "line 1: expected ,, at '2)'"),
        ("$d[1", "line 1: expected ], at the end"),
        ("#foreach($x.y in [1])#end", "line 1: expected a name alone"),
        ("#macro(x)a#end", "line 1: #macro is not supported here"),
        ("#parse('x')", "line 1: #parse is not supported here"),
        ("#evaluate('x')", "line 1: #evaluate is not supported here"),
        ("(" * 10 + "#set($x = " + "(" * 400 + "1", "lie more than 50 deep"),
        ("#if(1)" * 400, "lie more than 50 deep"),
    ],
)
def test_a_template_that_cannot_be_read_says_where_and_what(template: str, problem: str) -> None:
    """The error has the line, what was expected there and what there is."""
    with pytest.raises(TemplateError) as caught:
        parse(template)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("\n$d.list.get(9)", "line 2: .get(…) failed"),
        ("$d.csv.substring(3, 99)", "expected positions from 0 to 5, got 3 to 99"),
        ("$d.csv.replaceAll('(', '')", "is no regular expression"),
        ("#foreach($i in [1..999])#foreach($j in [1..999])#end#end", "go round more than 100000 times"),
        ("#foreach($i in [1..999999999])#end", "a range has more than 100000 numbers"),
        ("#set($x = 'aaaaaaaaaa')#foreach($i in [1..99])#set($x = $x + $x)#end", "more than 10000000 characters"),
        ("#set($x = 'aaaaaaaaaa')#foreach($i in [1..19])#set($x = $x + $x)#end$x$x", "more than 10000000 characters"),
        ("#define($x)$x#end$x", "stands in itself"),
        ("#set($d.get('map') = 1)", "a method's result cannot be set"),
    ],
)
def test_a_template_that_fails_says_where_and_why(template: str, problem: str) -> None:
    """A method that throws, and a template without end, are errors."""
    with pytest.raises(TemplateError) as caught:
        rendered(template)
    assert problem in str(caught.value)


def test_a_tool_has_its_methods_and_nothing_else() -> None:
    """What is put into a template can be asked for nothing but what it offers."""
    tool = Tool({"twice": lambda value: value * 2}, {"word": "w"})
    assert rendered("$t.twice(4)$t.word$t.methods$t.properties$t.count(1)$t", t=tool) == "8w"


@given(st.text(alphabet="$d.list[0](){}\"'#ifelsndorach=+-*/!\\ \n,", max_size=40))
def test_no_template_fails_otherwise(template: str) -> None:
    """Whatever a template is, it makes text or is an error of its own kind."""
    with contextlib.suppress(TemplateError):
        assert isinstance(rendered(template), str)


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)


@given(st.lists(st.dictionaries(st.text(max_size=3), SCALARS, max_size=3), max_size=3))
def test_lists_of_json_are_written_as_json(value: list[Any]) -> None:
    """A list that came as JSON reads back."""
    assert json.loads(text_of(value)) == value
