// Two languages, one word list each.

const words = {
  en: {
    app: 'Ocean', language: '中文', theme: 'Dark or light', skip: 'To the comments',
    title: 'Regions and the lines between them',
    lead: 'Each region keeps its own data and serves its own people. Click a line to cut it: both sides go on. Click again to heal it: what was written comes, causes first.',
    up: 'runs', down: 'does not run', clock: (s) => `clock wrong by ${s}`, page: 'page',
    whole: 'whole', cut: 'cut', half: 'cut one way', silent: 'silent', again: 'new post',
    cutLine: 'Cut', healLine: 'Heal', cutOne: (a, b) => `Cut ${a} → ${b}`, healOne: (a, b) => `Heal ${a} → ${b}`, lineOf: (a, b) => `Line ${a} – ${b}`,
    delay: 'Delay, one way', rate: 'Rate', noLimit: 'no limit', settings: 'Delay, rate, one way only', nothingWaits: 'nothing waits', commentsIn: (r) => `Comments in ${r}`, waiting: 'waiting', oldest: 'oldest', rtt: 'round trip',
    scene: 'One post, as each region shows it', sceneLead: 'Say something in one region and watch it arrive in the others. A reply never stands anywhere without what it replies to.',
    newPost: 'New post', lacks: { people: 'The people are moving in…', friends: 'They are becoming friends across the sea. If a line is cut, heal it first.', post: 'The post is being written…' },
    visiting: (name) => `${name}, on a visit`,
    absent: 'The post has not arrived here yet.', nobodyYet: 'Nobody has said anything here yet.', deleted: 'deleted',
    say: (n) => `${n} says…`, send: 'Send', reply: 'Reply', replyTo: (n, t) => `Reply to ${n}: “${t}”`, stop: 'Do not reply', replied: (n) => `↳ ${n}`,
    here: (r) => `is in ${r}`, notHere: (r) => `has not arrived in ${r}`, comments: (n) => (n === 1 ? '1 comment' : `${n} comments`),
    lost: 'The page cannot reach the program that runs the regions. Is it still up?', alarm: 'Alarm', more: (n) => `and ${n} earlier ones`,
  },
  'zh-CN': {
    app: '大洋', language: 'EN', theme: '深色或浅色', skip: '跳到评论',
    title: '各个数据中心和它们之间的线路',
    lead: '每个数据中心保存自己的数据，服务自己的用户。点一条线路把它剪断：两边照常工作。再点一次接通：写下的内容会到达，先因后果。',
    up: '运行中', down: '没有运行', clock: (s) => `时钟偏差 ${s}`, page: '页面',
    whole: '畅通', cut: '已断', half: '单向断开', silent: '无声', again: '新动态',
    cutLine: '剪断', healLine: '接通', cutOne: (a, b) => `剪断 ${a} → ${b}`, healOne: (a, b) => `接通 ${a} → ${b}`, lineOf: (a, b) => `线路 ${a} – ${b}`,
    delay: '单程延迟', rate: '速率', noLimit: '不限', settings: '延迟、速率、单向', nothingWaits: '没有等待', commentsIn: (r) => `${r} 的评论`, waiting: '等待', oldest: '最久', rtt: '往返',
    scene: '同一条动态，在各个数据中心看到的样子', sceneLead: '在一个数据中心说句话，看它怎样到达其他地方。回复绝不会先于它所回复的内容出现。',
    newPost: '新动态', lacks: { people: '大家正在搬进来……', friends: '他们正在隔海加为好友。如果线路断了，请先接通。', post: '正在发布动态……' },
    visiting: (name) => `${name}（来访）`,
    absent: '这条动态还没有到这里。', nobodyYet: '这里还没有人说话。', deleted: '已删除',
    say: (n) => `${n} 说……`, send: '发送', reply: '回复', replyTo: (n, t) => `回复 ${n}：“${t}”`, stop: '不回复', replied: (n) => `↳ ${n}`,
    here: (r) => `已到 ${r}`, notHere: (r) => `还没有到 ${r}`, comments: (n) => `${n} 条评论`,
    lost: '页面连不上运行各数据中心的程序。它还在运行吗？', alarm: '警报', more: (n) => `还有更早的 ${n} 条`,
  },
};

let language = navigator.language.startsWith('zh') ? 'zh-CN' : 'en';
try { language = localStorage.getItem('ocean.language') || language; } catch { /* no storage: the browser's */ }
if (!words[language]) language = 'en';
document.documentElement.lang = language;

// t gives the words of the language in use.
export const t = () => words[language];

export function switchLanguage() {
  language = language === 'en' ? 'zh-CN' : 'en';
  try { localStorage.setItem('ocean.language', language); } catch { /* as long as the page is open */ }
  document.documentElement.lang = language;
}

// time says a number of milliseconds in a few characters.
export function time(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60e3) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600e3) return `${Math.round(ms / 60e3)} min`;
  return `${(ms / 3600e3).toFixed(1)} h`;
}
