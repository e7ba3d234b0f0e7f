"""The Chinese of every sentence of the report: English, then Chinese, in pairs of lines; placeholders are the same in both.

A test holds that no sentence is missing, that placeholders agree, and that neither language claims what no tool can know.
"""

from __future__ import annotations

from typing import Final

from pipeline.images import NOT_SEARCHED
from pipeline.report_zh_practice import PAIRS as _PRACTICE
from pipeline.report_zh_sections import PAIRS as _SECTIONS
from pipeline.slip_through import SENTENCE

_PAGE = """
{name}: what this model is based on
{name}：该模型以什么为依据
personal data found
发现的个人数据
epsilon of this model
该模型的 epsilon
epsilon the policy allows
策略允许的 epsilon
audit verdicts passed
通过的审计结论
{passed} of {all}
{all} 项中的 {passed} 项
none
无
not counted
未计数
measured
实测
asserted by a person
由人声明
configured
配置
not applicable
不适用
missing
缺失
passed
通过
failed
未通过
not evaluated
未评估
evidence is here
有证据
evidence is absent
缺少证据
not covered by Privet
Privet 不涵盖
computed by a stage from its inputs
由某个阶段根据其输入计算得出
a public constant of the policy or of the program
策略或程序的公开常量
somebody's word, not checked here
某人的陈述，此处未核实
there is nothing to measure here, for the reason given
此处无可测量，理由已注明
there should be something here and there is not, for the reason given
此处应有内容而没有，理由已注明
check
检查项
verdict
结论
what it looks at
检查内容
what was seen (as recorded)
所见（按记录原文）
source
来源
requirement
要求
what it asks, in short
要求概述
evidence in this report
本报告中的证据
state
状态
figure
项目
value
值
basis
依据
Sources are SHA-256 digests of the documents that the figures were read from.
来源为各项数值所取自文件的 SHA-256 摘要。
Privet evidence report
Privet 证据报告
Made {at}.
生成于 {at}。
Contents
目录
Appendix: crosswalks to laws and standards
附录：与法律和标准的对照
Every figure names its source; nothing here is a legal assessment.
每个数值都注明来源；本文不构成法律评估。
What in this report is evidence for which requirement. Whether a requirement is met is for people to judge: this table judges nothing, and is no legal advice.
本表列出报告中的哪些内容可作为哪项要求的证据。要求是否得到满足由人判断：本表不作判断，也不构成法律意见。
yes
是
no
否
the {stage} stage recorded none
{stage} 阶段没有记录
further numbers
其余数值
{more} further numbers stand in the document itself
另有 {more} 个数值见文件本身
Privacy budget per {unit} over time: epsilon {spent} of the cap {cap} is spent.
每个 {unit} 的隐私预算随时间变化：上限 {cap} 中已用 epsilon {spent}。
Time: epsilon spent / cap. {points}
时间：已用 epsilon / 上限。{points}
Epsilon lower bounds of the audit against the claim: highest {highest}, claim {claim}. A bound is not a proof.
审计得到的 epsilon 下界与声明值对照：最高 {highest}，声明 {claim}。下界不是证明。
What detection may miss: upper bound on the missed share of planted values, by type of personal data.
检测可能漏掉的部分：按个人数据类型给出植入值漏检比例的上界。
Personal data found by type: {total} findings in {types} types.
按类型统计的个人数据：{types} 个类型共 {total} 处。
No model without differential privacy was measured in this run: it would learn from the data unprotected.
本次运行没有测量不带差分隐私的模型：那样的模型会在没有保护的情况下从数据中学习。
Utility on held-out units.
在留出单位上的效用。
Accuracy by group of {field}; groups with too few units are withheld.
按 {field} 分组的准确率；单位过少的组不公布。
Membership inference: share of members found against false alarms, both on a logarithmic scale. On the diagonal the attack knows nothing.
成员推断：找出的成员比例与误报比例，均为对数刻度。落在对角线上表示攻击一无所知。
epsilon
epsilon
share
比例
findings
发现数
accuracy
准确率
claim {claim}
声明 {claim}
all groups {value}
全部组 {value}
cap {cap}
上限 {cap}
epsilon spent
已用 epsilon
false alarms (share of others)
误报（占非成员的比例）
members found (share)
找出的成员（比例）
other types
其他类型
letter
字母
identifier
标识符
types looked for, and treatment
检索的类型及处理方式
found
发现数
note
说明
at {rate} % false alarms
误报率 {rate} % 时
question
问题
answer
回答
"""


def _pairs(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line]
    return dict(zip(lines[::2], lines[1::2], strict=True))


CHINESE: Final[dict[str, str]] = {
    **_pairs(_PAGE),
    **_pairs(_SECTIONS),
    **_pairs(_PRACTICE),
    NOT_SEARCHED: (
        "图片不检索个人数据：图中所示（人脸、姓名、号码）原样进入训练，仅由隐私声明保护。"
        "图片文件的元数据已丢弃：图片被解码为灰度像素。"
    ),
    SENTENCE: (
        "该上界只对与植入值类似的数据成立：其类型、形式与线索，以及本次运行这样的文本。其他形式的个人数据可能更常被漏检。"
    ),
}
CHINESE[" Conditions: {count}."] = "附条件：{count} 项。"
