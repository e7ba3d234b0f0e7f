"""Chinese of the report's sections 4 to 8; see `pipeline.report_zh`. English, then Chinese, in pairs of lines."""

from typing import Final

PAIRS: Final = """
Personal data
个人数据
Counts of what was found and replaced before training. They are exact, and stand outside the privacy claim. Detection misses some personal data; the privacy claim does not depend on it.
训练之前发现并替换的内容的计数。这些计数是精确的，不在隐私声明之内。检测会漏掉一部分个人数据；隐私声明不依赖于检测。
treatment by type
按类型的处理方式
recall by type and language on a labelled sample
在标注样本上按类型与语言的召回率
precision and false redactions on a labelled sample
在标注样本上的精确率与误遮盖
this dataset has no labelled sample; planted values stand in for it, see below
该数据集没有标注样本；以植入值代替，见下
sampled review by a steward
数据管理员的抽样复核
Privet records none; a steward reads samples outside of it
Privet 不作记录；数据管理员在系统之外阅读样本
share that detection misses: upper bound
检测漏检比例：上界
no value was planted in this run
本次运行没有植入值
missed by detection: {name}
检测漏检：{name}
all types
全部类型
{missed} of {planted} planted values; at most a share of {bound}, at confidence {level}
{planted} 个植入值中漏检 {missed} 个；比例至多 {bound}，置信度 {level}
{kind}: {name}
{kind}：{name}
redaction of the model's outputs
模型输出的遮盖
scores that may leave
可对外的分数
embeddings
嵌入向量
fewest people behind a cell of a table
表格单元背后的最少人数
characters of a stream held back until they are clean
流式输出中在确认干净之前保留的字符数
HIPAA Safe Harbor: the 18 identifiers
HIPAA Safe Harbor：18 类标识符
not looked for
未检索
no type of Privet: not looked for
Privet 没有对应类型：未检索
Utility and fairness
效用与公平
Accuracy on units kept out of training by a keyed rule. A model that learnt nothing looks private: read both. The figures are exact, and stand outside the privacy claim.
按带密钥的规则留出、未参与训练的单位上的准确率。什么都没学到的模型看起来也很私密：两者须一并阅读。数值是精确的，不在隐私声明之内。
accuracy with differential privacy, on held-out units
带差分隐私时在留出单位上的准确率
accuracy of always giving the most frequent label
总是给出最常见标签的准确率
accuracy without differential privacy
不带差分隐私的准确率
no model without differential privacy was trained on this data: it would learn from the data unprotected
没有在该数据上训练不带差分隐私的模型：那样会在没有保护的情况下从数据中学习
accuracy below which the gate stays closed
低于此准确率闸门不开
share of units kept out of training
未参与训练的单位比例
utility by group
按组的效用
the policy names no group to compare by (audit.harm.groups)
策略没有指定用于比较的组（audit.harm.groups）
units below which a group is withheld
单位数低于此值的组不公布
highest gap between groups that is allowed
允许的最大组间差距
terms of identity swapped in made-up texts
在虚构文本中互换身份用语
the policy switched it off
策略已关闭此项
known limits: not measured
已知局限：未测量
texts from other sources, other languages and later times; harm that no template or classifier of the policy sees
来自其他来源、其他语言与更晚时间的文本；策略的模板或分类器看不到的伤害
Data lifecycle
数据生命周期
A data subject's records are erased with privet erase; the receipt names the models that learnt from them. What is over its days is destroyed by privet retention.
数据主体的记录用 privet erase 删除；回执列出从中学习过的模型。超过期限的内容由 privet retention 销毁。
Expectations on the protected dataset hold counts: no record is shown, and no offending value is stored.
对受保护数据集的期望只含计数：不展示任何记录，也不保存任何违规值。
digest of the source
数据源摘要
the run names no source
本次运行没有注明数据源
format of the source
数据源格式
lawful basis, consent and notices
合法性基础、同意与告知
Privet records none; the controller keeps it, beside the policy's purpose
Privet 不作记录；由控制者与策略所述目的一并保存
raw batches
原始批次
destroyed once the protected dataset is committed
受保护数据集提交后即销毁
sealed originals (vault)
密封原件（保险库）
protected dataset
受保护数据集
quarantine
隔离区
{days} days
{days} 天
erased people, in old copies
旧副本中已删除的个人
at most {days} days
至多 {days} 天
records left out because their subject was erased
因主体已删除而略去的记录
deletions in the journal
日志中的删除
the journal holds no deletion yet: nothing was due or asked for
日志中尚无删除：没有到期或被请求的内容
key epochs of the dataset
数据集的密钥纪元
the keyring holds none for this dataset
密钥环中没有该数据集的纪元
this role may not look
该角色无权查看
key rotations
密钥轮换
{count} changes of keys in the journal
日志中有 {count} 次密钥变更
access log: entries by kind
访问日志：按种类的条目数
the journal holds no such entry yet
日志中尚无此类条目
Decisions
决定
The use gate was decided before training. The release gate approves this very page, so its signatures are not here: they lie in the bundle.
使用闸门在训练之前已作决定。发布闸门批准的正是本页，因此其签名不在此处，而在发布包中。
{names} signed as demo identities: the private keys lie on the machine that ran the pipeline.
{names} 以演示身份签名：私钥位于运行流水线的机器上。
{names} signed as a demo identity: the private key lies on the machine that ran the pipeline.
{names} 以演示身份签名：私钥位于运行流水线的机器上。
Such signatures show how the gate works; no person decided anything.
这类签名只演示闸门如何工作；没有任何人作出决定。
the use gate asks for
使用闸门的要求
the release gate asks for
发布闸门的要求
{quorum}; a signature counts for {hours} hours
{quorum}；签名在 {hours} 小时内有效
risk class
风险等级
decisions at the use gate
使用闸门的决定
nobody has signed
无人签名
{decision} by {signer} as {role}
{signer}（{role}）：{decision}
"{reason}" Signed {at}, counts until {ends}.
“{reason}”签署于 {at}，有效至 {ends}。
rejections in the journal, any run
日志中的否决（任何运行）
gates opened past the quorum (break-glass), any run
绕过法定人数开启的闸门（break-glass，任何运行）
none in the journal
日志中没有
{count} entries: {told}
{count} 条：{told}
open risks: checks that did not pass
未结风险：未通过的检查
the audit left no verdict
审计没有留下结论
refusals and failed validations, any run
拒绝与未通过的验证（任何运行）
{count} in the journal
日志中 {count} 条
what makes an approval void
使批准失效的情形
any other byte of the model, data, policy, code, report or evidence; the end of its hours; a revocation
模型、数据、策略、代码、报告或证据的任何字节改变；有效期届满；被撤销
How to verify this offline
如何离线验证
The bundle that holds this page can be checked on any machine, without a network and without the pipeline. The check recomputes every digest and signature, and epsilon from the mechanism trace. Get the trust root from the controller, not from the bundle.
包含本页的发布包可在任何机器上检查，无需网络，也无需流水线。检查会重新计算每个摘要与签名，并由机制记录重新计算 epsilon。信任根应向控制者索取，而不是取自发布包。
The journal's checkpoint was signed when this page was made. Whoever keeps the page can show later, with the second command, that no entry under it was changed or left out since. The last block is the checkpoint itself, in a public format (c2sp.org/tlog-checkpoint).
日志检查点在生成本页时签署。保存本页的人日后可用第二条命令证明其下没有任何条目被更改或遗漏。最后一块即检查点本身，采用公开格式（c2sp.org/tlog-checkpoint）。
checkpoint of the journal: entries under it
日志检查点：其下的条目数
checkpoint of the journal: root
日志检查点：根
checkpoint of the journal: time of its newest entry
日志检查点：最新条目的时间
no entry
没有条目
public key of the pipeline
流水线的公钥
"""
