package natstest

import (
	"os/exec"
	"syscall"
	"testing"
)

// A server that ends takes nothing along that the same process had started.
func TestEndTakesNobodyAlong(t *testing.T) {
	for range 50 {
		bystander := exec.Command("sleep", "60")
		bystander.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := bystander.Start(); err != nil {
			t.Fatal(err)
		}
		r, err := launch("true")
		if err != nil {
			t.Fatal(err)
		}
		<-r.ended
		if err := bystander.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = bystander.Wait()
		if status := bystander.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
			t.Fatalf("it was ended by %v, not by us", status.Signal())
		}
	}
}
