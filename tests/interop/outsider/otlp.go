package main

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

type logRecord struct {
	Service    string         `json:"service"`
	Event      string         `json:"event"`
	Body       string         `json:"body"`
	Severity   string         `json:"severity"`
	Time       string         `json:"time"`
	Attributes map[string]any `json:"attributes"`
}

// otlp reads one request as the OpenTelemetry Collector's receiver does, and tells what is in it, a record a line.
func otlp(in io.Reader) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	request := plogotlp.NewExportRequest()
	if err := request.UnmarshalJSON(raw); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, resource := range request.Logs().ResourceLogs().All() {
		service, _ := resource.Resource().Attributes().Get("service.name")
		for _, scope := range resource.ScopeLogs().All() {
			for _, one := range scope.LogRecords().All() {
				if err := out.Encode(logRecord{
					Service:    service.Str(),
					Event:      one.EventName(),
					Body:       one.Body().Str(),
					Severity:   one.SeverityNumber().String(),
					Time:       one.Timestamp().AsTime().Format(time.RFC3339Nano),
					Attributes: one.Attributes().AsRaw(),
				}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
