// SPDX-License-Identifier: Apache-2.0
// The libraries, in one place.
import { h, render, Fragment } from 'preact';
import { useState, useEffect, useRef, useMemo, useCallback, useLayoutEffect } from 'preact/hooks';
import htm from 'htm';
import uPlot from 'uplot';

export const html = htm.bind(h);
export { h, render, Fragment, uPlot, useState, useEffect, useRef, useMemo, useCallback, useLayoutEffect };
