//! A page that fails to draw says so, and takes nothing else down with it.

import { Component, type ReactNode } from "react";

interface BoundaryProps {
  /** Another path is another page: it is drawn anew. */
  path: string;
  children: ReactNode;
}

export class Boundary extends Component<BoundaryProps, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override componentDidUpdate(before: BoundaryProps): void {
    if (this.state.failed && before.path !== this.props.path) this.setState({ failed: false });
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <div className="page">
        <div className="message message-bad" role="alert">
          <strong>This page could not be drawn.</strong> What it would have shown may be important: look at the bedside, or at another page.{" "}
          <button type="button" onClick={() => window.location.reload()}>
            Load again
          </button>
        </div>
      </div>
    );
  }
}
