"""Names in the report that are no sentences: fields of documents, facts of stages, checks. Both languages side by side.

Guarantee: a name that is not here is shown as it stands, never dropped; `explained` answers for every check.
"""

from __future__ import annotations

from typing import Final

from pipeline.report_words import Words

_FIELDS = """
mechanism|mechanism|机制
privacy_unit|privacy unit|隐私单位
neighbouring_relation|neighbouring relation|相邻关系
noise_multiplier|noise multiplier|噪声乘数
clipping_norm|clipping norm (L2, per unit and step)|裁剪范数（L2，每单位每步）
sampling_probability|sampling probability|抽样概率
expected_batch_size|expected batch size (public)|期望批量大小（公开）
population|population (public)|总体（公开）
max_records_per_unit|most records of one unit|每单位最多记录数
auc_interval|interval of the AUC|AUC 区间
tpr_at_fpr|members found|找出的成员
interval|interval|区间
models|models|模型数
changed_rate|share of answers that changed|答案改变的比例
score_gap|gap of the score|分数差距
untouched|share left untouched|未变的比例
texts|texts|文本数
differences|differences|差异
demographic_parity|demographic parity|人口统计均等
equalised_odds|equalised odds|均等机会
by_term_group|by group of terms|按用语组
neutral_terms|with neutral terms swapped instead|改换中性词时
limits|limits of the policy|策略限度
min_group|smallest group|最小组
max_gap|highest gap|最高差距
max_swap_rate|highest share of changed answers|答案改变的最高比例
max_harm_rate|highest share called harmful|被判为有害的最高比例
harmful_rate|share called harmful|被判为有害的比例
epsilon_lower_bound|epsilon lower bound|epsilon 下界
tried|tried|尝试数
reconstructed|reconstructed|重建数
upper_bound|upper bound|上界
chance|by chance|随机水平
most|most allowed|允许的最多
steps|steps charged|计费步数
steps_in_model|steps in the released model|发布模型所含步数
delta|delta|delta
epsilon|epsilon|epsilon
accountant|accountant|会计方法
ledger_key|key in the ledger|账本键
sampler|sampler|抽样器
noise_source|source of the noise|噪声来源
steinke|Steinke (one run)|Steinke（单次运行）
fdp|f-DP (one run)|f-DP（单次运行）
gaussian|Gaussian, of sums|高斯（总和）
gaussian_traced|Gaussian, of every step|高斯（逐步）
fair secret coins only|fair secret coins only|仅需公平的秘密硬币
a Gaussian trade-off curve|a Gaussian trade-off curve|高斯权衡曲线
independent, nearly Gaussian scores of disjoint coordinates|independent, nearly Gaussian scores of disjoint coordinates|互不相交坐标上独立且近似高斯的得分
independent, nearly Gaussian scores of disjoint coordinates, and noise of mean zero that is unrelated from step to step, which the probe tests|independent, nearly Gaussian scores of disjoint coordinates, and noise of mean zero that is unrelated from step to step, which the probe tests|互不相交坐标上独立且近似高斯的得分，且噪声均值为零、逐步无关（由探针检验）
bounds|lower bounds|下界
claimed_epsilon|claimed epsilon|声明的 epsilon
canaries|canaries|金丝雀样本
gate_level|confidence of the gate|闸门置信度
report_level|confidence of the report|报告置信度
probe_level|false-alarm level of the probe|探针误报水平
membership|membership inference|成员推断
attacks|attacks|攻击
loss|loss|损失
lira|LiRA|LiRA
rmia|RMIA|RMIA
auc|AUC|AUC
tpr_at_1_percent|members found at 1 % false alarms|误报率 1 % 时找出的成员
tpr_at_0_1_percent|members found at 0.1 % false alarms|误报率 0.1 % 时找出的成员
tpr_at_1pc|members found at 1 % false alarms|误报率 1 % 时找出的成员
tpr_at_01pc|members found at 0.1 % false alarms|误报率 0.1 % 时找出的成员
tpr_at_0.01|members found at 1 % false alarms|误报率 1 % 时找出的成员
tpr_at_0.001|members found at 0.1 % false alarms|误报率 0.1 % 时找出的成员
tpr|members found|找出的成员
fpr|false alarms|误报
members|members|成员
others|others|非成员
non_members|others|非成员
shadows|shadow models|影子模型
max_tpr|highest share allowed|允许的最高比例
exposure|exposure of planted secrets|植入秘密的暴露度
exposure_bits|exposure (bits)|暴露度（比特）
mean_bits|mean (bits)|平均（比特）
bits|bits|比特
planted|planted|植入
controls|never shown (control)|从未展示（对照）
control|never shown (control)|从未展示（对照）
shown|shown|已展示
repeats|times shown|展示次数
digits|digits|位数
max_exposure_bits|highest mean allowed (bits)|允许的最高均值（比特）
memorisation|memorised spans|记忆片段
samples|texts written|所写文本
spans|spans|片段
flagged|flagged|标记
flagged_spans|flagged spans|标记片段
max_spans|spans allowed|允许的片段
subjects|subjects|主体
signs|shortest span (characters)|最短片段（字符）
rate|share|比例
level|confidence|置信度
redaction|redaction of outputs|输出遮盖
seeded|values seeded|播种的值
survived|values that survived|未被遮盖的值
leaks|leaks|泄漏
allowed|allowed|允许
outputs|outputs|输出
miss_bound|upper bound on the share missed|漏检比例上界
metrics|metrics|指标
utility|utility|效用
accuracy|accuracy|准确率
holdout_accuracy|with differential privacy|带差分隐私
majority_accuracy|most frequent label|最常见标签
majority|most frequent label|最常见标签
non_private_accuracy|without differential privacy|不带差分隐私
groups|groups|组
rows|rows|行
units|units|单位
gap|gap|差距
gap_interval|interval of the gap|差距区间
withheld|withheld|不公布
swaps|identity terms swapped|身份用语互换
swap_rate|share of answers that changed|答案改变的比例
harm|harm|伤害
harm_rate|share called harmful|被判为有害的比例
classifier|classifier|分类器
validation|validation|验证
validation_results|results of the validation|验证结果
ingest|ingest|接收
files|files|文件数
files_rejected|files refused|拒收文件数
records|records|记录数
rejects|records in quarantine|隔离记录
verdict|verdict|结论
expectations|expectations|期望数
evaluated|evaluated|已评估
failed|failed|未通过
suppressed|records of erased subjects left out|略去的已删除主体记录
records_beyond_bound|records beyond the contribution bound|超出贡献上限的记录
entities|personal data found|发现的个人数据
undeclared_language|records in an undeclared language|未声明语言的记录
detector|detector|检测器
denied_left|values of sealed lists left|密封清单中残留的值
images_not_searched|images that were not searched|未检索的图片
language|language|语言
canaries_planted|values planted|植入的值
canaries_missed|planted values missed|漏检的植入值
validate.residual_pii|second scan: records that still hold personal data|二次扫描：仍含个人数据的记录
residual_pii|second scan: records that still hold personal data|二次扫描：仍含个人数据的记录
second_look_texts|another model: texts read|另一模型：阅读文本数
second_look_flagged|another model: texts in which it sees a name|另一模型：认为含姓名的文本数
noise_scale|noise scale|噪声尺度
clipping|clipping|裁剪
noise_independence|independence of the noise|噪声独立性
batch_size_law|law of the batch size|批量大小规律
participation_law|law of participation|参与规律
divisor|divisor|除数
step_count|number of steps|步数
size_independence|independence of the dataset's size|与数据集大小无关
rank_noise|noise of every process|各进程的噪声
accumulation|accumulation over virtual batches|虚拟批次累积
"""
_CHECKS = """
validation|the expectations on the protected dataset|对受保护数据集的期望
probe.noise_scale|is the noise in the gradients as large as claimed?|梯度中的噪声是否如声明那样大？
probe.clipping|was each unit's contribution limited as claimed?|每个单位的贡献是否按声明受限？
probe.noise_independence|is the noise of one step unrelated to that of the next?|各步噪声是否互不相关？
probe.batch_size_law|do the batch sizes follow the claimed sampling?|批量大小是否符合声明的抽样？
probe.participation_law|did units take part as the claimed sampling says?|单位参与是否符合声明的抽样？
probe.divisor|was the noisy sum divided by a public constant?|加噪求和是否除以公开常量？
probe.step_count|are the recorded steps those that were charged?|记录的步数是否就是计费的步数？
probe.size_independence|does nothing in the noise follow the private size of the data?|噪声是否不随数据的私有规模变化？
probe.rank_noise|did the processes together add all of the noise?|各进程合起来是否加足噪声？
probe.accumulation|were virtual batches clipped and noised once a step?|虚拟批次是否每步只裁剪并加噪一次？
audit.epsilon_lower_bound|do the canaries refute the claimed epsilon?|金丝雀样本是否推翻声明的 epsilon？
audit.ledger_match|do trace, ledger and approval tell one story?|机制记录、账本与批准是否一致？
audit.canary_reveal|do the revealed coins open the commitment made before training?|揭示的硬币是否与训练前的承诺一致？
audit.utility|is the model of use on held-out units?|模型在留出单位上是否有用？
audit.output_scan|do planted values survive the redaction of outputs?|植入值能否逃过输出遮盖？
audit.membership|can an attack tell who was in the training data?|攻击能否辨认谁在训练数据中？
audit.exposure|does the model prefer planted secrets over ones never shown?|模型是否偏向植入的秘密而非从未展示的秘密？
audit.memorisation|does what the model writes repeat spans of few people's records?|模型所写是否重复少数人记录中的片段？
audit.group_harm|does the model treat groups alike, within the policy's limits?|模型对各组是否一视同仁（在策略限度内）？
audit.embeddings|can personal data be reconstructed from embeddings that may leave?|能否由可对外的嵌入向量重建个人数据？
audit.disclosure|do tables of predictions hide small cells?|预测表是否隐藏了小单元？
"""


def _rows(text: str) -> dict[str, Words]:
    parts = (line.split("|") for line in text.splitlines() if line)
    return {name: Words(english, chinese) for name, english, chinese in parts}


TERMS: Final[dict[str, Words]] = _rows(_FIELDS)
CHECKS: Final[dict[str, Words]] = _rows(_CHECKS)


def explained(check: str) -> Words:
    """What a check looks at; a check that this page does not know says so by its own name."""
    known = CHECKS.get(check)
    return known if known is not None else Words("see the name of the check", "见检查项名称")
