"use strict";
softlabels.sections.store = (root, data) => {};
