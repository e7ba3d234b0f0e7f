"""Chinese of the report's sections 1 to 3; see `pipeline.report_zh`. English, then Chinese, in pairs of lines."""

from typing import Final

PAIRS: Final = """
Identity
身份标识
policy
策略
{name} (layout {version})
{name}（版式 {version}）
digest of the policy
策略摘要
purpose
处理目的
controller
数据控制者
dataset
数据集
digest of the protected dataset's result
受保护数据集结果的摘要
digest of the released weights (model.safetensors)
发布权重（model.safetensors）的摘要
version of Privet that trained
执行训练的 Privet 版本
digest of Privet's source files, when the report was made
生成报告时 Privet 源文件的摘要
digest of the lock file of the dependencies
依赖锁定文件的摘要
this installation came without one
此安装不含该文件
run
运行
Airflow DAG
Airflow DAG
the report was made outside an Airflow task, for policy {name}
报告在 Airflow 任务之外生成，策略为 {name}
result of the {stage} stage
{stage} 阶段的结果
versions of the tools, when the report was made
生成报告时各工具的版本
requested by
申请人
key holder {name}
密钥持有人 {name}
roles: {roles}; key {held}
角色：{roles}；密钥{held}
held by the pipeline, in its home
由流水线保存在其主目录中
of a demo identity, beside the pipeline's
属于演示身份，与流水线的密钥放在一起
held by the person
由本人持有
digest of the trust root
信任根摘要
time source
时间来源
the clock of the machine that ran the stages; the journal keeps the order, whatever the clock says
运行各阶段的机器时钟；无论时钟如何，日志保持先后次序
the training left no model
训练没有留下模型
Differential privacy claim
差分隐私声明
There is no privacy claim: the run used no mechanism that bounds the privacy loss. Such a model does not leave.
没有隐私声明：本次运行未使用能限制隐私损失的机制。这样的模型不会对外发布。
second accountant (privacy-loss distributions), on the same trace
第二会计方法（隐私损失分布），基于同一机制记录
epsilon {epsilon} at delta {delta}: it does not exceed the claim
delta {delta} 时 epsilon {epsilon}：不超过声明值
epsilon {epsilon} at delta {delta}: ABOVE the claim
delta {delta} 时 epsilon {epsilon}：高于声明值
it could not be computed for these parameters
在这些参数下无法计算
epsilon spent on the dataset by all runs (cumulative, per privacy unit)
所有运行在该数据集上已用的 epsilon（累计，按隐私单位）
epsilon cap of the dataset
数据集的 epsilon 上限
epsilon that the policy allows this run
策略允许本次运行的 epsilon
the ledger holds nothing for this dataset
账本中没有该数据集的记录
runs charged to the dataset
计入该数据集的运行次数
what is released
发布内容
the final weights only; no intermediate checkpoint leaves
仅最终权重；中间检查点不对外
divisor of the noisy sum
加噪求和的除数
the expected batch size, a public constant
期望批量大小，为公开常量
what amplification by sampling rests on
抽样放大所依据的前提
each unit enters each step by its own secret coin (Poisson); the audit's probe tests the recorded batches
每个单位以各自的秘密硬币进入每一步（泊松抽样）；审计探针检验所记录的批次
hyper-parameter search
超参数搜索
{count} searches in this home's journal; private trials are charged to the ledger
本主目录的日志中有 {count} 次搜索；私有试验计入账本
none in this home; repeated runs are charged one by one
本主目录中没有；重复运行逐次计费
pretrained weights (public, outside the claim)
预训练权重（公开，不在声明之内）
none: trained from scratch
无：从头训练
fitted on the data outside the mechanism
在机制之外由数据拟合的内容
nothing: vocabulary, labels and image sizes are public; nothing is selected on private validation data
无：词表、标签与图片尺寸均为公开；没有依据私有验证数据做选择
published exactly, outside the claim
精确公布、不在声明之内的内容
counts of records, units and findings, results of the validation, accuracy on held-out units, attack figures
记录数、单位数与发现数，验证结果，留出单位上的准确率，攻击数值
trust model
信任模型
central: the controller's machine sees the data; who only sees the model need not be trusted
集中式：控制者的机器可见数据；只看到模型的人无需被信任
randomness
随机性
the operating system and an AES counter; noise is drawn in floating point, whose effects the figure leaves out
操作系统与 AES 计数器；噪声以浮点数抽取，其效应不在该数值之内
side channels
侧信道
time and memory of a training run are not protected; only its outputs are
训练的耗时与内存不受保护；受保护的只有其输出
exposure when the data was collected
数据采集时的暴露
Privet starts at the landing folder: how the data came there is not known to it
Privet 从落地目录开始：数据如何到达该处不为其所知
delta times population (below 1)
delta 乘以总体（小于 1）
the same mechanism at other deltas (epsilon at delta)
同一机制在其他 delta 下的值（epsilon at delta）
The privacy claim in plain words
用通俗语言说明隐私声明
Who is protected?
保护谁？
Each {unit}, with everything that one {unit} contributed (at most {records} records enter).
每一个 {unit}，连同一个 {unit} 贡献的全部内容（最多 {records} 条记录进入训练）。
What is compared?
比较什么？
The training with that {unit}, and the same training without (neighbouring relation: add-or-remove-one).
包含该 {unit} 的训练，与不包含它的同一训练（相邻关系：add-or-remove-one，即增加或删除一个单位）。
What does it promise?
承诺什么？
Whatever happens to the model, it was at most {factor} times as likely with one {unit} as without (epsilon {epsilon}), apart from a chance of {delta} (delta).
无论模型出现何种结果，有某一个 {unit} 时的可能性至多是没有时的 {factor} 倍（epsilon {epsilon}），另有 {delta} 的例外概率（delta）。
How is it done?
如何做到？
In {steps} steps, each over a random sample of the {unit}s, what one {unit} can change is limited and random noise is added before anything is learnt.
共 {steps} 步，每步随机抽取部分 {unit}，限制单个 {unit} 所能造成的改变，并在学习之前加入随机噪声。
Who has to be trusted?
需要信任谁？
The controller and the machine that trained: they saw the data. Nobody who only sees the model.
控制者与执行训练的机器：它们看到了数据。只看到模型的人无需被信任。
What does it assume?
有哪些前提？
Units are sampled independently, contributions are limited as stated, nobody can predict noise and sampling, and the sizes of population and batch are public, not computed from the data.
各单位独立抽样，贡献按所述方式受限，没有人能预测噪声与抽样，总体与批量的大小是公开的而非由数据算出。
What is not covered?
不涵盖什么？
Other uses of the same data outside the ledger, what is learnt about groups or from other sources, one person behind several {unit}s, floating-point effects, and counts that are published exactly and marked so.
账本之外对同一数据的其他使用，关于群体或来自其他来源的知识，一个人对应多个 {unit} 的情形，浮点效应，以及精确公布并已注明的计数。
Audit evidence
审计证据
Each check ends in one of three verdicts; a check that was not evaluated blocks the release like a failed one. An epsilon lower bound is a statistical bound from below: above the claim it refutes the claim, below it proves nothing. A lower bound is not a proof.
每项检查有三种结论之一；未评估的检查与未通过的检查一样会阻止发布。epsilon 下界是自下而上的统计界：高于声明值即推翻声明，低于声明值则什么也不能证明。下界不是证明。
Figures of attacks are exact, over real units, and stand outside the privacy claim.
攻击数值是针对真实单位的精确值，不在隐私声明之内。
epsilon lower bound
epsilon 下界
no lower bound could be computed from the canaries
无法由金丝雀样本计算下界
{name}, at confidence {level}
{name}，置信度 {level}
epsilon lower bound, {which}
epsilon 下界，{which}
{bound} (assumes {assumes})
{bound}（前提：{assumes}）
canaries
金丝雀样本数
confidence of the gate, registered before training
闸门置信度，训练前登记
confidence of the published bounds
公布下界的置信度
conformance probe
一致性探针
the run left no record that could be probed
本次运行没有留下可供探查的记录
p-value of the {check} check
{check} 检查的 p 值
this check gives no p-value here; its verdict says what was seen
该检查在此没有 p 值；所见内容见其结论
commitment to the canary coins
对金丝雀硬币的承诺值
the run left none
本次运行没有留下
place of that commitment in the journal
该承诺值在日志中的位置
the journal holds no such commitment
日志中没有该承诺值
entry {seq}, {at}
第 {seq} 条，{at}
who draws the coins
由谁抽取硬币
an auditor, ahead of training
审计员，在训练之前
the pipeline itself
流水线自身
membership attacks that the policy asks for
策略要求的成员推断攻击
shadow models
影子模型数
membership inference: AUC
成员推断：AUC
membership inference: members found at 1 % and 0.1 % false alarms
成员推断：误报率 1 % 与 0.1 % 时找出的成员比例
the audit left no such figure
审计没有留下该数值
exposure of planted secrets, with secrets never shown as control
植入秘密的暴露度，以从未展示的秘密作对照
spans of written texts that stand in few people's records
所写文本中只见于少数人记录的片段
the model writes no texts
该模型不生成文本
the policy asks for no planted secrets (audit.secrets)
策略未要求植入秘密（audit.secrets）
"""
