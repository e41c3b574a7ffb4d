// Draws one dashboard as Grafana's own components do: window.dashboard is its JSON, window.answer what its panels
// were answered (bench_test.go). What Grafana itself does around a panel is done here in its simplest form.
import * as React from 'react';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getFieldDisplayValues, getDisplayValueAlignmentFactors,
  Registry, standardEditorsRegistry, standardFieldConfigEditorRegistry, ThemeContext, toDataFrame, VizOrientation, type DataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

declare const window: any;
const theme = createTheme({ colors: { mode: 'light' } });
const { dashboard, answer } = window;
const range = { from: dateTime(answer.From), to: dateTime(answer.To), raw: dashboard.time };

// Every property that the dashboards set, taken as it is.
const options = (ids: string[], isCustom: boolean) => ids.map((path) => ({
  id: isCustom ? 'custom.' + path : path, path, name: path, isCustom, editor: () => null, override: () => null, settings: {}, shouldApply: () => true, process: (v: any) => v,
}));
const registry: any = new Registry(() => [
  ...options(['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color'], false),
  ...options(['drawStyle', 'fillOpacity', 'lineWidth', 'showPoints', 'pointSize', 'stacking', 'align', 'cellOptions', 'filterable', 'width', 'axisLabel'], true),
] as any);
standardEditorsRegistry.setInit(() => []);
standardFieldConfigEditorRegistry.setInit(() => []);

const typeOf = (t: string) =>
  /DateTime/.test(t) ? FieldType.time : /^(Nullable\(|SimpleAggregateFunction\(\w+, )?(U?Int|Float|Decimal)/.test(t) ? FieldType.number : FieldType.string;

// frames turns an answer into what the data source gives: of a time series in long form, a field for each text.
function frames(panel: any): DataFrame[] {
  const { Meta, Data } = answer.Panels[panel.id];
  const types = Meta.map((m: any) => typeOf(m.Type));
  const at = (i: number, v: any) => (v === null ? null : types[i] === FieldType.time ? Date.parse(String(v).replace(' ', 'T').slice(0, 23) + 'Z') : types[i] === FieldType.number ? Number(v) : typeof v === 'object' ? Object.values(v).join(', ') : v);
  const text = types.indexOf(FieldType.string);
  if (panel.type === 'timeseries' && text >= 0) {
    const number = types.indexOf(FieldType.number);
    const times = [...new Set(Data.map((r: any) => at(0, r[0])))].sort((a: any, b: any) => a - b);
    const names = [...new Set(Data.map((r: any) => r[text]))].sort() as string[];
    const cells = new Map(Data.map((r: any) => [r[text] + ' ' + at(0, r[0]), at(number, r[number])]));
    return [toDataFrame({ fields: [{ name: 'time', type: FieldType.time, values: times },
      ...names.map((n) => ({ name: n, type: FieldType.number, values: times.map((t) => cells.get(n + ' ' + t) ?? null) }))] })];
  }
  return [toDataFrame({ fields: Meta.map((m: any, i: number) => ({ name: m.Name, type: types[i], values: Data.map((r: any) => at(i, r[i])) })) })];
}

function Body({ panel, width, height }: { panel: any; width: number; height: number }) {
  const data = applyFieldOverrides({ data: frames(panel), fieldConfig: panel.fieldConfig, replaceVariables: (v) => v, theme, timeZone: 'utc', fieldConfigRegistry: registry });
  switch (panel.type) {
    case 'timeseries':
      return <TimeSeries frames={data} width={width} height={height} timeRange={range as any} timeZone="utc" legend={panel.options.legend} options={panel.options} />;
    case 'table':
      return <TableNG data={data[0]} width={width} height={height} cellHeight={panel.options.cellHeight} noHeader={!panel.options.showHeader} />;
  }
  const values = getFieldDisplayValues({ fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (v) => v, theme, data, timeZone: 'utc' });
  if (panel.type === 'stat') {
    return <BigValue value={values[0].display} width={width} height={height} theme={theme} {...panel.options} />;
  }
  const factors = getDisplayValueAlignmentFactors(values);
  const most = Math.max(...values.map((v) => v.display.numeric));
  const each = Math.min(50, height / values.length - 6);
  return <div>{values.map((v, i) => (
    <div key={i} style={{ marginBottom: 6 }}>
      <BarGauge value={v.display} width={width} height={each} theme={theme} field={{ ...v.field, min: 0, max: most }} display={v.view?.getFieldDisplayProcessor(v.colIndex!)}
        orientation={VizOrientation.Horizontal} alignmentFactors={factors} displayMode={panel.options.displayMode} valueDisplayMode={panel.options.valueMode} showUnfilled={panel.options.showUnfilled} />
    </div>))}</div>;
}

const column = 1600 / 24, row = 38;
const chosen = Object.entries(answer.Vars ?? {}).map(([name, values]: [string, any]) => name + ': ' + (values?.length > 1 ? 'All' : values?.[0] ?? 'any'));
const bottom = Math.max(...dashboard.panels.map((p: any) => p.gridPos.y + p.gridPos.h));

createRoot(document.getElementById('root')!).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ width: 1616, padding: 8, background: theme.colors.background.canvas, height: bottom * row + 56 }}>
      <div style={{ height: 40, display: 'flex', gap: 24, alignItems: 'baseline', padding: '4px 8px' }}>
        <span style={{ fontSize: 20 }}>{dashboard.title}</span>
        <span>{chosen.join('   ')}</span>
        <span style={{ marginLeft: 'auto' }}>{dashboard.time.from} to {dashboard.time.to}, UTC</span>
      </div>
      <div style={{ position: 'relative' }}>
        {dashboard.panels.map((p: any) => {
          const g = p.gridPos;
          return <div key={p.id} style={{ position: 'absolute', left: g.x * column, top: g.y * row }}>
            <PanelChrome title={p.title} description={p.description} width={g.w * column - 8} height={g.h * row - 8} padding={p.type === 'table' ? 'none' : 'md'}>
              {(w: number, h: number) => <Body panel={p} width={w} height={h} />}
            </PanelChrome>
          </div>;
        })}
      </div>
    </div>
  </ThemeContext.Provider>,
);
