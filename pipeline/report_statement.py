"""The privacy statement for people who have never heard of epsilon: question and answer, in both languages.

Guarantee: every number comes from the mechanism trace; epsilon is recomputed from it and rounded up. States unit, neighbouring
relation, assumptions and what is not covered. Source of the contents: the privacy statement of TensorFlow Privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.report_page import Table
from pipeline.report_words import LANGUAGES, Words, say
from privacy.accounting import MechanismTrace, privacy_statement, recompute_epsilon
from privacy.rounding import shown_up


def lay_table(trace: MechanismTrace) -> Table:
    """One row a question, for readers of the report and of the card."""
    unit, epsilon = trace.privacy_unit, recompute_epsilon(trace)
    factor = f"{math.ceil(math.exp(min(epsilon, 50.0)) * 10) / 10:,}" if epsilon < 50 else "10^21"
    rows = (
        (
            say("Who is protected?"),
            say(
                "Each {unit}, with everything that one {unit} contributed (at most {records} records enter).",
                unit=unit,
                records=trace.max_records_per_unit,
            ),
        ),
        (
            say("What is compared?"),
            say(
                "The training with that {unit}, and the same training without (neighbouring relation: add-or-remove-one).",
                unit=unit,
            ),
        ),
        (
            say("What does it promise?"),
            say(
                "Whatever happens to the model, it was at most {factor} times as likely with one {unit} as without "
                "(epsilon {epsilon}), apart from a chance of {delta} (delta).",
                factor=factor,
                unit=unit,
                epsilon=shown_up(epsilon),
                delta=trace.delta,
            ),
        ),
        (
            say("How is it done?"),
            say(
                "In {steps} steps, each over a random sample of the {unit}s, what one {unit} can change is limited and "
                "random noise is added before anything is learnt.",
                steps=trace.steps,
                unit=unit,
            ),
        ),
        (
            say("Who has to be trusted?"),
            say("The controller and the machine that trained: they saw the data. Nobody who only sees the model."),
        ),
        (
            say("What does it assume?"),
            say(
                "Units are sampled independently, contributions are limited as stated, nobody can predict noise and sampling, "
                "and the sizes of population and batch are public, not computed from the data."
            ),
        ),
        (
            say("What is not covered?"),
            say(
                "Other uses of the same data outside the ledger, what is learnt about groups or from other sources, one person "
                "behind several {unit}s, floating-point effects, and counts that are published exactly and marked so.",
                unit=unit,
            ),
        ),
    )
    return Table(say("The privacy claim in plain words"), (say("question"), say("answer")), rows)


def statement(trace: MechanismTrace) -> Words:
    """The exact statement; English as `privacy.accounting.privacy_statement` gives it."""
    base = trace.noise_multiplier
    changing = "" if not trace.noise_schedule else f"（再乘以含 {len(trace.noise_schedule)} 段的噪声计划）"
    epsilon = shown_up(recompute_epsilon(trace))
    chinese = (
        f"差分隐私：epsilon {epsilon}，delta {trace.delta}，隐私单位为一个 {trace.privacy_unit}。"
        f"增加或删除一个 {trace.privacy_unit} 所贡献的全部内容（最多 {trace.max_records_per_unit} 条记录进入训练；"
        f"相邻关系：add-or-remove-one），任何训练结果出现的概率至多变化 e^{epsilon} 倍，另加 {trace.delta}。"
        f"机制：{trace.steps} 个计入预算的步骤（其中 {trace.steps_in_model} 步进入发布的模型），每步以概率 "
        f"{trace.sampling_probability:.6g} 泊松抽样（公开总体 {trace.population}，期望批量 {trace.expected_batch_size}），"
        f"按 L2 范数 {trace.clipping_norm:.6g} 裁剪，高斯噪声乘数 {base:.6g}{changing}；会计方法：{trace.accountant}。"
        "前提：各单位独立抽样，贡献按所述方式裁剪，攻击者无法预测噪声与抽样，总体与批量大小不是由数据算出。"
        "噪声抽样的浮点效应不在此数字之内。不涵盖：账本之外对同一数据的其他使用，关于群体或来自其他来源的知识，"
        "以及同一个人以多个单位出现的情形。"
    )
    return Words(privacy_statement(trace), chinese)


def no_claim() -> Words:
    return say(
        "There is no privacy claim: the run used no mechanism that bounds the privacy loss. Such a model does not leave."
    )


def lay_markdown(trace: MechanismTrace, plain: Callable[[str], str]) -> str:
    """The table as Markdown, English then Chinese, for a model card. plain: escapes a text: no name brings in markup."""
    table, parts = lay_table(trace), []
    for language in LANGUAGES:
        lines = [f"**{plain(table.title.of(language))}**", "", "| | |", "|---|---|"]
        lines += [f"| {plain(row[0].of(language))} | {plain(row[1].of(language))} |" for row in table.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
