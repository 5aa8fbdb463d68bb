// SPDX-License-Identifier: Apache-2.0
// Two languages, one list of words each. What processes say (names, states of admission
// in their own words) is shown as it came.

const words = {
  en: {
    app: 'Sluice console', entries: 'Entries', graph: 'Graph', compare: 'Compare', traces: 'Traces', services: 'Services', qos: 'QoS',
    skip: 'Skip to content', period: 'Period', live: 'Live', paused: 'Paused', pause: 'Pause', resume: 'Resume', theme: 'Light or dark', language: '中文', languageName: 'Language',
    last: { '5m': '5 min', '15m': '15 min', '1h': '1 hour', '6h': '6 hours', '24h': '24 hours' },
    loading: 'Loading…', retry: 'Try again', failedToLoad: 'This could not be loaded', stale: (t) => `Not up to date: shown as of ${t}`,
    offline: 'The console does not answer.', updated: (t) => `as of ${t}`, gathering: 'Gathering first counts', gatheringHint: 'Rates need two pulls: the first numbers come in a few seconds.',
    search: 'Search', find: 'Find', clear: 'Clear', all: 'all', none: 'none', close: 'Close', back: 'Back', more: 'More', showAll: (n) => `Show all ${n}`,
    entry: 'Entry', rate: 'Rate', errors: 'Errors', p50: 'p50', p90: 'p90', p99: 'p99', mean: 'Mean', trend: 'Trend', calls: 'Calls', failed: 'Failed', state: 'State', bytes: 'Bytes in / out', change: 'Change', note: 'Notes',
    entriesLead: 'Where requests come in: HTTP routes, jobs, calls made outside of any request. Every request is counted.',
    noEntries: 'No requests in this time', noEntriesHint: 'As soon as a process serves a request, its entry stands here.',
    findEntry: 'Find an entry', openGraph: 'Open its call graph', rateTrend: 'requests per second', p99Trend: '99th percentile', unnamed: 'no process has told its name',
    graphLead: 'Every call of this entry through the whole system, counted at both ends.', chooseEntry: 'Choose an entry', allEntries: 'All entries',
    findNode: 'Find a method', found: (n) => (n === 1 ? '1 found' : `${n} found`), hops: 'Hops', noLimit: 'all', minor: 'Hide minor edges', minorOff: 'show all', below: (p) => `below ${p}`,
    around: 'Around', aroundHere: 'Show only what is near', aroundAll: 'Show the whole graph', labels: 'Numbers on edges', zoomIn: 'Larger', zoomOut: 'Smaller', fit: 'Fit', download: 'Download',
    nodes: 'Methods', edges: 'Calls between methods', node: 'Method', caller: 'Caller', callee: 'Callee', kind: 'Kind', perRequest: 'Per request', service: 'Service', method: 'Method',
    hidden: (n, e) => `${n} methods and ${e} edges are hidden`, overflow: (n) => `${n} calls could not be attributed: a process had no slot left`,
    emptyGraph: 'No calls in this time', emptyGraphHint: 'Choose a longer period, or another entry.', tooLarge: 'This graph is too large to be drawn. Limit the hops, or hide minor edges.',
    pictureOf: (t) => `Call graph of ${t}`, pictureHint: 'Arrow keys move between methods, Enter shows details. The tables below say the same.', selected: 'Selected', details: 'Details',
    bothEnds: 'Both ends agree', endsDiffer: (n) => `Both ends disagree by ${n}`, attempts: 'Attempts', served: 'Served', uncertain: 'Gave up waiting', notDelivered: 'Not delivered',
    serverSide: 'As the callee saw it', critical: 'Critical path', criticalOf: (n, unfair) => `${unfair ? 'failed and slow requests' : 'sampled'}, ${n} traces`, cycle: 'part of a cycle', link: 'over a queue', results: 'How calls ended', seeTraces: 'Traces', seeService: 'Service', callsTo: 'calls',
    kinds: { entry: 'entry', method: 'method', unknown: 'unknown caller', overflow: 'overflow' }, legend: 'Legend', legendFailed: 'calls failed', legendLink: 'queue', legendCritical: 'critical path', legendCycle: 'cycle',
    severity: ['open', 'busy', 'pinned', 'overloaded'],
    compareLead: 'Two periods on the same picture: nothing moves, only numbers do.', now: 'Now', before: 'Before', compareWith: 'Compare with', ago: { '5m': '5 min earlier', '15m': '15 min earlier', '1h': '1 hour earlier', '6h': '6 hours earlier', '24h': 'a day earlier' }, show: 'Show',
    added: 'new', gone: 'gone', same: 'same', noBase: 'Nothing is kept of that earlier time', noBaseHint: 'The console keeps a day, from when it was started.', p99Before: 'p99 before', rateBefore: 'Rate before', errorsBefore: 'Errors before',
    tracesLead: 'Requests that were sampled, failed or were slow, put together from all processes.', anyEntry: 'any entry', anyService: 'any service', anyCode: 'any end', edge: 'Edge', edgeHint: 'caller->callee', code: 'Ended with', atLeast: 'At least, ms', atMost: 'At most, ms', attribute: 'Attribute', attributeHint: 'key=value', text: 'Text', onlyFailed: 'Only with failures',
    noTraces: 'No traces to show', noTracesHint: 'Traces come as requests are sampled, fail, or are slow.', noMatch: 'Nothing matches', noMatchHint: 'Try fewer filters.', ofTraces: (n, all) => `${n} of ${all}`, keptTraces: (n) => `${n} traces are kept`,
    when: 'When', duration: 'Duration', ended: 'Ended', spans: 'Spans', processes: 'Processes', kept: 'Kept because', keptFor: { sampled: 'sampled', error: 'failed', slow: 'slow', below: 'for a call below' }, partial: 'its beginning was not kept',
    trace: 'Trace', span: 'Span', process: 'Process', started: 'Started', percentile: 'Percentile', percentileOf: (p, n) => `slower than ${p} of ${n} calls in the last hour`, orphan: 'its caller was not kept', self: 'Own time', timeline: 'Timeline', peer: 'Peer', message: 'Message', attributes: 'Attributes', copied: 'Copied', share: 'of the critical path', spanKinds: { client: 'client', server: 'server', producer: 'sends', consumer: 'receives', internal: 'within' }, traceGone: 'This trace is not kept', traceGoneHint: 'It was never kept, or had to make room for later ones.', cutTrace: 'It has more spans than are kept.',
    servicesLead: 'What each service serves, and every item its processes show.', noServices: 'No service has served anything yet', methods: 'Methods', callers: 'Called by', callees: 'Calls', items: 'Items', group: 'Group', allGroups: 'all groups', moving: 'Only what is not zero', findItem: 'Find an item', item: 'Item', value: 'Value', perSecond: 'per second', noItems: 'No item matches', chart: 'Chart', valuesTable: 'Values', time: 'Time', help: 'What it is', chooseItem: 'Choose an item to see it over time.', notKept: (n) => `${n} items have no room and are not kept`, shown: (n, all) => `${n} of ${all} items`,
    processesLead: 'The admin ports that the console pulls.', address: 'Address', pulled: 'Pulled', pullTook: 'Took', skew: 'Clock', restarts: 'Restarts', up: 'Up since', procState: { ok: 'ok', failing: 'failing', new: 'new', same: 'same process' }, sameAs: (n) => `same process as ${n}`, lies: (n) => `${n} answers not believed`,
    qosLead: 'What admission does in each process over time.', level: 'Level', running: 'Running', waiting: 'Waiting', admitted: 'Let in', rejected: 'Turned away', heldBack: 'Held back by callers', delay: 'Delay', limit: 'Limit', unknown: 'unknown', states: { open: 'open', busy: 'busy', pinned: 'pinned', overloaded: 'overloaded', off: 'off', unknown: 'unknown' }, from: 'From', to: 'To', changes: 'Changes of state', noQoS: 'No process has told how admission is', strip: (p) => `Admission of ${p} over time`,
    problem: (n) => (n === 1 ? '1 process cannot be pulled' : `${n} processes cannot be pulled`), noProcess: 'No process to look at', noProcessHint: 'Tell the console which admin ports there are: --target or --targets.', total: 'Total', everySec: (s) => `every ${s} s`,
    nEntries: (n) => (n === '1' ? '1 entry' : `${n} entries`), nMethods: (n) => (n === '1' ? '1 method' : `${n} methods`), nEdges: (n) => (n === '1' ? '1 edge' : `${n} edges`), nSpans: (n) => (n === '1' ? '1 span' : `${n} spans`), nProcesses: (n) => (n === '1' ? '1 process' : `${n} processes`), graphAll: 'Every call through the whole system, counted at both ends.', linesLeft: (n) => `${n} more lines have no room here; choose one below.`, calmHint: 'No line has values in this time.',
    continues: 'Goes on in', causedBy: 'Caused by',
    keysHint: '/ search · 1–6 pages · p pause · arrows move · Enter opens',
  },
  'zh-CN': {
    app: 'Sluice 控制台', entries: '入口', graph: '调用图', compare: '对比', traces: '链路', services: '服务', qos: '过载保护',
    skip: '跳到正文', period: '时间段', live: '实时', paused: '已暂停', pause: '暂停', resume: '继续', theme: '浅色或深色', language: 'English', languageName: '语言',
    last: { '5m': '5 分钟', '15m': '15 分钟', '1h': '1 小时', '6h': '6 小时', '24h': '24 小时' },
    loading: '加载中…', retry: '重试', failedToLoad: '加载失败', stale: (t) => `数据未更新，截至 ${t}`,
    offline: '控制台没有响应。', updated: (t) => `截至 ${t}`, gathering: '正在收集首批数据', gatheringHint: '速率需要两次采集，几秒后出现首批数字。',
    search: '搜索', find: '查找', clear: '清除', all: '全部', none: '无', close: '关闭', back: '返回', more: '更多', showAll: (n) => `显示全部 ${n} 条`,
    entry: '入口', rate: '速率', errors: '错误率', p50: 'p50', p90: 'p90', p99: 'p99', mean: '平均', trend: '趋势', calls: '调用数', failed: '失败', state: '状态', bytes: '请求 / 响应字节', change: '变化', note: '备注',
    entriesLead: '请求进入系统的地方：HTTP 路由、后台任务，以及不属于任何请求的调用。每个请求都被计数。',
    noEntries: '这段时间没有请求', noEntriesHint: '一旦有进程处理请求，它的入口就会出现在这里。',
    findEntry: '查找入口', openGraph: '打开调用图', rateTrend: '每秒请求数', p99Trend: '99 分位', unnamed: '没有进程告知其名称',
    graphLead: '该入口在整个系统中的每一次调用，两端分别计数。', chooseEntry: '选择入口', allEntries: '所有入口',
    findNode: '查找方法', found: (n) => `找到 ${n} 个`, hops: '跳数', noLimit: '不限', minor: '隐藏次要边', minorOff: '全部显示', below: (p) => `低于 ${p}`,
    around: '中心', aroundHere: '只看附近', aroundAll: '显示整张图', labels: '边上显示数字', zoomIn: '放大', zoomOut: '缩小', fit: '适应窗口', download: '下载',
    nodes: '方法', edges: '方法之间的调用', node: '方法', caller: '调用方', callee: '被调方', kind: '类型', perRequest: '每请求', service: '服务', method: '方法',
    hidden: (n, e) => `隐藏了 ${n} 个方法和 ${e} 条边`, overflow: (n) => `${n} 次调用无法归属：有进程的计数槽已满`,
    emptyGraph: '这段时间没有调用', emptyGraphHint: '请选择更长的时间段或其他入口。', tooLarge: '图太大，无法绘制。请限制跳数或隐藏次要边。',
    pictureOf: (t) => `${t} 的调用图`, pictureHint: '方向键在方法间移动，回车查看详情。下方表格内容相同。', selected: '已选', details: '详情',
    bothEnds: '两端一致', endsDiffer: (n) => `两端相差 ${n}`, attempts: '尝试次数', served: '已处理', uncertain: '放弃等待', notDelivered: '未送达',
    serverSide: '被调方视角', critical: '关键路径', criticalOf: (n, unfair) => `${unfair ? '失败与缓慢的请求' : '采样'}，${n} 条链路`, cycle: '属于环', link: '经由队列', results: '调用结果', seeTraces: '链路', seeService: '服务', callsTo: '调用',
    kinds: { entry: '入口', method: '方法', unknown: '未知调用方', overflow: '溢出' }, legend: '图例', legendFailed: '有失败', legendLink: '队列', legendCritical: '关键路径', legendCycle: '环',
    severity: ['开放', '繁忙', '已固定', '过载'],
    compareLead: '两个时间段画在同一张图上：位置不变，只有数字变。', now: '现在', before: '之前', compareWith: '对比', ago: { '5m': '5 分钟前', '15m': '15 分钟前', '1h': '1 小时前', '6h': '6 小时前', '24h': '一天前' }, show: '显示',
    added: '新增', gone: '消失', same: '不变', noBase: '没有保留那段时间的数据', noBaseHint: '控制台从启动起保留一天的数据。', p99Before: '之前 p99', rateBefore: '之前速率', errorsBefore: '之前错误率',
    tracesLead: '被采样、失败或缓慢的请求，由所有进程的记录拼合而成。', anyEntry: '任意入口', anyService: '任意服务', anyCode: '任意结果', edge: '边', edgeHint: '调用方->被调方', code: '结果', atLeast: '至少（毫秒）', atMost: '至多（毫秒）', attribute: '属性', attributeHint: '键=值', text: '文本', onlyFailed: '仅含失败',
    noTraces: '没有可显示的链路', noTracesHint: '请求被采样、失败或缓慢时会出现在这里。', noMatch: '没有匹配项', noMatchHint: '请减少筛选条件。', ofTraces: (n, all) => `${all} 条中的 ${n} 条`, keptTraces: (n) => `共保留 ${n} 条链路`,
    when: '时间', duration: '耗时', ended: '结果', spans: '跨度', processes: '进程', kept: '保留原因', keptFor: { sampled: '采样', error: '失败', slow: '缓慢', below: '下游有留存' }, partial: '未保留开头部分',
    trace: '链路', span: '跨度', process: '进程', started: '开始', percentile: '百分位', percentileOf: (p, n) => `比最近一小时 ${n} 次调用中的 ${p} 更慢`, orphan: '未保留其调用方', self: '自身耗时', timeline: '时间线', peer: '对端', message: '消息', attributes: '属性', copied: '已复制', share: '占关键路径', spanKinds: { client: '客户端', server: '服务端', producer: '发送', consumer: '接收', internal: '内部' }, traceGone: '没有保留这条链路', traceGoneHint: '从未保留，或已为更新的链路让位。', cutTrace: '跨度数超出保留上限。',
    servicesLead: '每个服务处理了什么，以及其进程的全部监控项。', noServices: '还没有服务处理过请求', methods: '方法', callers: '调用方', callees: '调用', items: '监控项', group: '分组', allGroups: '所有分组', moving: '仅非零', findItem: '查找监控项', item: '监控项', value: '值', perSecond: '每秒', noItems: '没有匹配的监控项', chart: '图表', valuesTable: '数值', time: '时间', help: '含义', chooseItem: '选择一个监控项查看其走势。', notKept: (n) => `${n} 项因空间不足未保留`, shown: (n, all) => `${all} 项中的 ${n} 项`,
    processesLead: '控制台采集的管理端口。', address: '地址', pulled: '采集于', pullTook: '用时', skew: '时钟偏差', restarts: '重启', up: '启动于', procState: { ok: '正常', failing: '失败', new: '新增', same: '同一进程' }, sameAs: (n) => `与 ${n} 为同一进程`, lies: (n) => `${n} 次回答不可信`,
    qosLead: '各进程的准入控制随时间的变化。', level: '准入级别', running: '运行中', waiting: '排队', admitted: '放行', rejected: '拒绝', heldBack: '调用方抑制', delay: '延迟', limit: '上限', unknown: '未知', states: { open: '开放', busy: '繁忙', pinned: '已固定', overloaded: '过载', off: '关闭', unknown: '未知' }, from: '从', to: '到', changes: '状态变化', noQoS: '没有进程告知准入状态', strip: (p) => `${p} 的准入状态随时间的变化`,
    problem: (n) => `${n} 个进程无法采集`, noProcess: '没有可查看的进程', noProcessHint: '用 --target 或 --targets 告诉控制台有哪些管理端口。', total: '合计', everySec: (s) => `每 ${s} 秒`,
    nEntries: (n) => `${n} 个入口`, nMethods: (n) => `${n} 个方法`, nEdges: (n) => `${n} 条边`, nSpans: (n) => `${n} 个跨度`, nProcesses: (n) => `${n} 个进程`, graphAll: '整个系统中的每一次调用，两端分别计数。', linesLeft: (n) => `另有 ${n} 条线放不下，请在下方选择。`, calmHint: '这段时间没有数值。',
    continues: '后续', causedBy: '起因',
    keysHint: '/ 搜索 · 1–6 切换页面 · p 暂停 · 方向键移动 · 回车打开',
  },
};

const asked = new URLSearchParams(location.search).get('lang') || localStorage.getItem('console.lang') || navigator.language || 'en';
export let lang = asked.startsWith('zh') ? 'zh-CN' : 'en';
export let t = words[lang];

export function setLang(to) {
  lang = to;
  t = words[lang];
  localStorage.setItem('console.lang', lang);
  document.documentElement.lang = lang;
}
document.documentElement.lang = lang;
