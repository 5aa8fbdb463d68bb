// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them: three digits, a unit, nothing false.
import { lang } from './i18n.js';

// num writes three digits: 0.012, 1.23, 45.6, 789, 12.3k, 4.56M.
export function num(v) {
  if (v == null || Number.isNaN(v)) return '–';
  if (!Number.isFinite(v)) return '∞';
  const sign = v < 0 ? '−' : '';
  let f = Math.abs(v);
  for (const unit of ['', 'k', 'M', 'G', 'T', 'P']) {
    if (f < 999.5) {
      if (f === 0) return '0';
      const digits = f >= 99.95 || (Number.isInteger(f) && unit === '') ? 0 : f >= 9.995 ? 1 : f < 0.1 && unit === '' ? 4 : 2;
      return sign + f.toFixed(digits) + unit;
    }
    f /= 1000;
  }
  return sign + f.toPrecision(3) + 'E';
}
export const whole = (v) => (v == null ? '–' : Math.round(v).toLocaleString('en-US').replaceAll(',', ' '));
export const rate = (v) => (v == null ? '–' : `${num(v)}/s`);

export function ms(v) {
  if (v == null) return '–';
  if (v === 0) return '0';
  const a = Math.abs(v), s = v < 0 ? '−' : '';
  if (a < 1) return `${s}${num(a * 1000)} µs`;
  if (a < 999.5) return `${s}${num(a)} ms`;
  if (a < 119_500) return `${s}${num(a / 1000)} s`;
  return `${s}${num(a / 60_000)} min`;
}

// pct never writes 0 % for something, nor 100 % for not all.
export function pct(f) {
  if (f == null) return '–';
  const p = f * 100;
  if (f <= 0) return '0%';
  if (p < 0.01) return '<0.01%';
  if (f < 1 && p >= 99.95) return '>99.9%';
  return `${Number(p.toPrecision(3))}%`;
}

export function bytes(v) {
  if (v == null) return '–';
  for (const unit of ['B', 'kB', 'MB', 'GB', 'TB']) {
    if (v < 999.5) return `${unit === 'B' ? Math.round(v) : Number(v.toPrecision(3))} ${unit}`;
    v /= 1000;
  }
  return `${v.toPrecision(3)} PB`;
}

export function clock(sec, withDate) {
  if (!sec) return '–';
  const d = new Date(sec * 1000);
  const time = d.toLocaleTimeString(lang, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  if (!withDate && d.toDateString() === new Date().toDateString()) return time;
  return `${d.toLocaleDateString(lang, { month: 'short', day: 'numeric' })} ${time}`;
}

// method splits a full method name where a page may break it.
export const shortService = (s) => s.slice(s.lastIndexOf('.') + 1);
export function unitValue(v, unit) {
  if (v == null) return '–';
  if (unit === 's') return ms(v * 1000);
  if (unit === 'By') return bytes(v);
  return num(v);
}
