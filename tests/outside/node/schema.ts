// The types of Grafana that a dashboard of ours consists of; made a JSON schema by dashboards.mjs.
import type * as dashboard from '@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen';
import type * as logs from '@grafana/schema/dist/types/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

export interface WholeDashboard extends dashboard.Dashboard {}
export type OnePanel = dashboard.Panel;
export interface LogsOptions extends logs.Options {}
export interface StatOptions extends stat.Options {}
export interface TableOptions extends table.Options {}
export interface TimeseriesOptions extends timeseries.Options {}
export interface TimeseriesField extends timeseries.FieldConfig {}
