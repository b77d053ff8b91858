package server

import "testing"

func TestDescribe(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := string(describe([]byte(text))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("# HELP dws_sockets\n# TYPE dws_sockets gauge\ndws_sockets 3\n", "# HELP dws_sockets Open sockets.\n# TYPE dws_sockets gauge\ndws_sockets 3\n")
	f("# HELP go_goroutines\n", "# HELP go_goroutines Of the Go runtime.\n")
	f("# HELP process_x\n", "# HELP process_x Of the process, by /proc.\n")
	f("# TYPE process_io_read_bytes_total gauge\nprocess_io_read_bytes_total 1\n", "# TYPE process_io_read_bytes_total counter\nprocess_io_read_bytes_total 1\n")
	f("# HELP go_cpu_count\n# TYPE go_cpu_count gauge\ngo_cpu_count 2\ngo_cpu_counted 1\n", "go_cpu_counted 1\n")
	f("dws_x{a=\"# HELP\"} 1\n", "dws_x{a=\"# HELP\"} 1\n")
}
