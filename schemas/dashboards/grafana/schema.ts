// What a dashboard of ours may be, in the types of @grafana/schema: schema.sh makes
// schema.json of it. Options and custom fields are bound to the kind of their panel;
// Partial, because Grafana fills in what is left out.
import * as raw from '@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';

// The query of the ClickHouse data source as its configuration in dashboards is documented.
interface Target {
  refId: string;
  datasource: raw.DataSourceRef;
  editorType: 'sql';
  format: 0 | 1;
  queryType: 'timeseries' | 'table';
  rawSql: string;
}

type Panel<Type extends string, Options, Custom> = Omit<raw.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'gridPos'> & {
  id: number;
  type: Type;
  title: string;
  description: string;
  gridPos: raw.GridPos;
  datasource: raw.DataSourceRef;
  targets: Target[];
  options: Partial<Options>;
  fieldConfig: Omit<raw.FieldConfigSource, 'defaults'> & { defaults: Omit<raw.FieldConfig, 'custom'> & { custom?: Partial<Custom> } };
};

type Panels =
  | Panel<'stat', stat.Options, {}>
  | Panel<'table', table.Options, table.FieldConfig>
  | Panel<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Panel<'bargauge', bargauge.Options, {}>;

export type Dashboard = Omit<raw.Dashboard, 'panels'> & { uid: string; title: string; panels: Panels[] };
